"""Layers that users write in Python: the class that theirs derive from, and whether any may run.

A prototxt names such a layer's module and class, and loading the net imports them: this is the one way in which a
model runs code.  The command line therefore refuses them unless it is told otherwise; scripts, which are code
themselves, may use them, as with pycaffe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .blob import Blob
from .proto.caffe_pb2 import LayerParameter

_NOTE = "Raised by the Python layer "
_allowed = True


class BlobVec(list[Blob]):
    """The parameter blobs of a Python layer.

    Parameters
    ----------
    dtype : element type of those that are added
    """

    def __init__(self, dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__()
        self._dtype = np.dtype(dtype)

    def add_blob(self, *shape: int) -> None:
        """Add a parameter of this shape, filled with zeros."""
        self.append(Blob(shape, self._dtype))


class Layer:
    """Base of a layer written in Python (pycaffe's ``caffe.Layer``).

    A subclass has these methods, of which `setup` and `backward` may be left out where there is nothing to do:

    - ``setup(bottom, top)``, once: reads `param_str`, adds parameters by ``self.blobs.add_blob(*shape)``;
    - ``reshape(bottom, top)``, before each forward pass: ``top[0].reshape(*shape)``;
    - ``forward(bottom, top)``: reads ``bottom[i].data``, fills ``top[i].data[...]``;
    - ``backward(top, propagate_down, bottom)``: reads ``top[i].diff``, fills ``bottom[i].diff[...]`` where
      ``propagate_down[i]``, and adds to ``self.blobs[j].diff[...]``.

    A layer without bottoms supplies data.  One that ends in a loss gets ``loss_weight: 1`` in the prototxt.  Snapshots
    hold its `blobs`, not what it keeps in attributes of its own, such as a place in its data.

    Parameters
    ----------
    param : the layer's definition

    Attributes
    ----------
    param_str : the text that the prototxt gives in ``python_param``
    phase : TRAIN or TEST
    blobs : the parameters
    """

    type: ClassVar[str] = "Python"

    def __init__(self, param: LayerParameter) -> None:
        self.param_str = param.python_param.param_str
        self.phase = int(param.phase)
        self.blobs = BlobVec()


def python_layers_allowed() -> bool:
    """Whether a net may have Python layers at present."""
    return _allowed


@contextlib.contextmanager
def python_layers(allowed: bool) -> Iterator[None]:
    """Allow, or refuse, Python layers in the whole process while a ``with`` block lasts."""
    global _allowed
    before = _allowed
    _allowed = allowed
    try:
        yield
    finally:
        _allowed = before


def blame(error: BaseException, who: str) -> None:
    """Note on an error that the user's own code raised it; type and traceback stay as they are."""
    if culprit(error) is None:
        error.add_note(f"{_NOTE}{who}")


def culprit(error: BaseException) -> str | None:
    """The sentence that `blame` noted, or None."""
    notes = getattr(error, "__notes__", ())
    return next((note for note in notes if note.startswith(_NOTE)), None)
