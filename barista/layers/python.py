"""The Python layer: a class of the user's takes the place of a layer."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import NetError, UnsupportedError, nearest
from ..ops.base import OpSet
from ..proto.caffe_pb2 import LayerParameter
from ..python_layer import BlobVec, blame, python_layers_allowed
from ..python_layer import Layer as UserLayer
from .base import Bottoms, Count, Layer, Tops, register


@register("Python")
class Python(Layer):
    """Runs a class that derives from `barista.Layer`.

    What this object does not have itself it takes from the user's, so that ``net.layers[i].method()`` and
    ``net.layers[i].attribute = value`` reach it; where a name means something here already, ``net.layers[i].layer``
    is the user's object.

    Caffe: the field share_in_parallel has no effect, as in Caffe 1.0.

    Attributes
    ----------
    layer : the user's object
    """

    bottoms = Count()
    tops = Count()
    shows_blobs = True
    reshapes_always = True

    layer: UserLayer

    def __init__(self, param: LayerParameter, ops: OpSet, phase: int, rng: np.random.Generator) -> None:
        super().__init__(param, ops, phase, rng)
        given = param.python_param
        if not python_layers_allowed():
            raise UnsupportedError(f"{param.name} (Python): would run the class {given.layer!r} of the Python module "
                                   f"{given.module!r}, which commands refuse, since a model may come from anybody; "
                                   "where you trust its code, add --allow-python-layers")
        if not given.module or not given.layer:
            raise self.error("needs python_param { module: '...' layer: '...' }, the names of a Python module and of "
                             "a class in it", NetError)
        self._who = f"{param.name!r} ({given.module}.{given.layer})"
        kind = self._find(given.module, given.layer)
        layer = self._guard(kind, "__init__", param)
        layer.param_str = given.param_str
        layer.phase = phase
        layer.blobs = self.blobs = BlobVec(ops.dtype)
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        layer = self.__dict__.get("layer")
        if layer is None or name.startswith("__"):
            raise AttributeError(f"a layer of type Python has no attribute {name!r}")
        return getattr(layer, name)

    def __setattr__(self, name: str, value: object) -> None:
        layer = self.__dict__.get("layer")
        if layer is None or name in self.__dict__ or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(layer, name, value)

    # ---- life cycle -------------------------------------------------------------------------

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        if hasattr(self.layer, "setup"):
            self._call("setup", list(bottom), list(top))
        for index, blob in enumerate(self.blobs):
            self._take_weights(index, blob)
        self._count_params()

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        self._call("reshape", list(bottom), list(top))
        self._count_params()

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._call("forward", list(bottom), list(top))

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if any(propagate_down) or self.blobs or hasattr(self.layer, "backward"):
            self._call("backward", list(top), list(propagate_down), list(bottom))

    def _count_params(self) -> None:
        self.param_propagate_down += [True] * (len(self.blobs) - len(self.param_propagate_down))

    # ---- the user's code --------------------------------------------------------------------

    def _call(self, method: str, *args: object) -> None:
        function = getattr(self.layer, method, None)
        if function is None:
            kind = type(self.layer).__name__
            raise self.error(f"its class {kind} has no method {method}(), which is called now; write one", NetError)
        self._guard(function, method, *args)

    def _guard(self, function: Any, method: str, *args: object) -> Any:
        """Call the user's code; an error of its own comes through with a note of the layer."""
        try:
            return function(*args)
        except Exception as error:
            blame(error, f"{self._who}, in {method}")
            raise

    def _find(self, module: str, name: str) -> type[UserLayer]:
        """The user's class; modules are looked for on Python's path, then in the working folder.

        Raises
        ------
        NetError : no such module, no such class in it, or one that is no layer
        """
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)  # for good: the module may import its neighbours only later
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                raise self.error(f"there is no Python module {module!r} on Python's path or in the working folder "
                                 f"{here}; add its folder to PYTHONPATH", NetError) from None
            blame(error, f"{self._who}, while its module was imported"
                  + ("; write `import barista as caffe` there, or call barista.as_caffe() before the net is made"
                     if error.name == "caffe" else ""))
            raise
        except Exception as error:
            blame(error, f"{self._who}, while its module was imported")
            raise
        kind = getattr(loaded, name, None)
        if kind is None:
            classes = [key for key, value in vars(loaded).items() if inspect.isclass(value)]
            raise self.error(f"the Python module {module!r} ({getattr(loaded, '__file__', 'built in')}) has no class "
                             f"{name!r}; {nearest(name, classes)}".rstrip("; "), NetError)
        if not (inspect.isclass(kind) and issubclass(kind, UserLayer)):
            raise self.error(f"{module}.{name} is no layer; derive the class from barista.Layer (caffe.Layer)",
                             NetError)
        return kind
