"""Caffe2's models, pairs of an init net and a predict net, to Caffe's ``NetParameter`` by way of ONNX.

The init net runs in NumPy (``fills``), the operators of the predict net become nodes of an ONNX model (``convert``,
with ``ops`` and ``windows``), and the importer of ONNX models does the rest.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from barista.errors import PrototxtError
from barista.frontends.onnx import read_onnx
from barista.frontends.prototxt import read_net_def
from barista.proto.caffe_pb2 import NetParameter

from .convert import to_onnx

if TYPE_CHECKING:
    import onnx

__all__ = ["load_pair", "read_caffe2", "to_onnx"]

logger = logging.getLogger(__name__)

# Beside the nets of Caffe2's model zoo: {"data": [1, [1, 3, 224, 224]]}, the first number an element type (1 is float).
VALUE_INFO = "value_info.json"
_LARGEST_VALUE_INFO_BYTES = 2**20


def read_caffe2(init: str | os.PathLike[str] | None, predict: str | os.PathLike[str],
                input_shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0) -> NetParameter:
    """Read a Caffe2 model as a net with its weights; each file binary or text.

    Parameters
    ----------
    init : the net that fills the weights (``init_net.pb``); None where the other does so itself
    predict : the net that computes (``predict_net.pb``)
    input_shapes : shapes of inputs by name; for others a ``value_info.json`` beside `predict` is asked
    seed : start of the random numbers of fills such as XavierFill

    Raises
    ------
    PrototxtError : a file cannot be read
    NetError : the nets contradict themselves or each other, or an input has no shape
    UnsupportedError : operators that cannot be converted; the message lists all of them
    MissingExtraError : onnx is not installed
    """
    return read_onnx(load_pair(init, predict, input_shapes, seed))


def load_pair(init: str | os.PathLike[str] | None, predict: str | os.PathLike[str],
              input_shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0,
              batch: int | None = None) -> onnx.ModelProto:
    """Read a Caffe2 model as an ONNX model.

    Parameters
    ----------
    init, predict, input_shapes, seed : as for `read_caffe2`
    batch : the first size of inputs whose shape stands beside `predict`

    Raises as `read_caffe2`.
    """
    net = read_net_def(predict)
    shapes = value_info(Path(predict).with_name(VALUE_INFO))
    if batch is not None:
        shapes = {name: [batch, *shape[1:]] for name, shape in shapes.items()}
    shapes.update({name: list(shape) for name, shape in (input_shapes or {}).items()})
    return to_onnx(None if init is None else read_net_def(init), net, shapes, seed)


def value_info(path: Path) -> dict[str, list[int]]:
    """The shapes of inputs in a file of Caffe2's model zoo; none where there is no such file.

    Raises
    ------
    PrototxtError : it holds something else
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_VALUE_INFO_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        shapes = {name: shape for name, (_, shape) in json.loads(path.read_text(encoding="utf-8")).items()}
        if not all(isinstance(shape, list) and all(type(size) is int for size in shape) for shape in shapes.values()):
            raise ValueError("a shape is no list of whole numbers")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PrototxtError(f"holds no shapes of inputs, such as {{\"data\": [1, [1, 3, 224, 224]]}}: {error}",
                            os.fspath(path)) from error
    logger.info("%s: shapes of inputs are %s", path, shapes)
    return shapes
