"""ONNX models to Caffe's ``NetParameter``, with their weights.

A model is read and checked (``model``), its nodes are turned into layers one after the other (``converter``, with one
file ``ops_*`` for each family of operators), and what is constant is computed on the way (``fold``).  What Caffe cannot
say becomes one of Barista's own layer types.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from barista.errors import MissingExtraError, NetError
from barista.proto.caffe_pb2 import NetParameter

try:
    importlib.import_module("onnx")
except ImportError as error:
    raise MissingExtraError("onnx", "onnx", "reading and writing ONNX models") from error

from .converter import Converted, Converter
from .model import Source, load_model

__all__ = ["Converted", "convert", "read_onnx"]

# Each file of operators registers its handlers when it is imported.
for _module in pkgutil.iter_modules(__path__):
    if _module.name.startswith("ops_"):
        importlib.import_module(f"{__name__}.{_module.name}")


def read_onnx(model: Source, input_shapes: Mapping[str, Sequence[int]] | None = None) -> NetParameter:
    """Read an ONNX model as a net with its weights.

    Inputs of the graph become Input layers, its outputs are the outputs of the net; both keep their names.  Dimensions
    without a number, such as the batch, are 1 or what `input_shapes` says.

    Parameters
    ----------
    model : the path of a model, its bytes, or a ModelProto
    input_shapes : shapes of inputs by name, for those that are not to have the shape of the model

    Raises
    ------
    PrototxtError : the file cannot be read, or is no ONNX model
    NetError : the model contradicts itself; the message names the node or value
    DataError : external data that are missing, too short, or not beside the model
    UnsupportedError : nodes that no layer can say; the message lists all of them
    """
    return convert(model, input_shapes).net


def convert(model: Source, input_shapes: Mapping[str, Sequence[int]] | None = None,
            values: Mapping[str, npt.NDArray[Any]] | None = None) -> Converted:
    """Convert a model as `read_onnx` does, and tell which blobs are its inputs and outputs.

    Parameters
    ----------
    model, input_shapes : as for `read_onnx`
    values : what inputs of the graph are going to hold.  Where an operator of Caffe needs to know an input beforehand
        (weights, shapes), it is taken from here, and is no input of the net any more (`Converted.fixed`).

    Raises as `read_onnx`.
    """
    try:
        return Converter(load_model(model, input_shapes), values or {}).convert()
    except UnicodeDecodeError as error:
        raise NetError(f"the model holds a text that is not UTF-8 ({error}); it is damaged") from error
