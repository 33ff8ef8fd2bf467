"""What pycaffe's Net offers on top of a net that computes: blobs and layers by name, batches, hooks, HDF5.

`Net` inherits all of this.  The names with a leading underscore are pycaffe's own; old scripts use them.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import hdf5
from .blob import HOST, Blob
from .errors import NetError, ShapeError
from .layers import Layer
from .named import Named
from .ops.base import OpSet
from .proto.caffe_pb2 import NetParameter

# Told the index of a layer.
Hook = Callable[[int], object]
Arrays = dict[str, npt.NDArray[Any]]


class Moment(enum.Enum):
    """When a hook is called."""

    BEFORE_FORWARD = "before forward"
    AFTER_FORWARD = "after forward"
    BEFORE_BACKWARD = "before backward"
    AFTER_BACKWARD = "after backward"


class PycaffeNet:
    """The part of a net that pycaffe's users see; what it stands on is declared here and made by `Net`."""

    name: str
    ops: OpSet
    layers: list[Layer]
    blobs: dict[str, Blob]
    inputs: list[str]
    outputs: list[str]

    def __init__(self) -> None:
        self._bottom_names: list[list[str]] = []
        self._top_names: list[list[str]] = []
        self.hooks: dict[Moment, list[Hook]] = {moment: [] for moment in Moment}

    def forward_pass(self, start: int = 0, end: int | None = None) -> None:
        """Run the layers `start` to `end`."""
        raise NotImplementedError

    def backward_pass(self, start: int | None = None, end: int = 0) -> None:
        """Run the backward passes of the layers `start` down to `end`."""
        raise NotImplementedError

    def loss(self, start: int = 0, end: int | None = None) -> float:
        """The weighted loss of the last forward pass, or the part of these layers."""
        raise NotImplementedError

    def to_proto(self, write_diff: bool = False) -> NetParameter:
        """The definition with the parameters in its blobs."""
        raise NotImplementedError

    def copy_trained_layers(self, weights: NetParameter, source: str) -> None:
        """Copy the parameters of layers of the same names."""
        raise NotImplementedError

    # ---- names ------------------------------------------------------------------------------

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers in order, inserted splits included."""
        return [layer.name for layer in self.layers]

    @property
    def layer_dict(self) -> dict[str, Layer]:
        """The layers by name, in order."""
        return Named(f"net {self.name!r} has no layer", ((layer.name, layer) for layer in self.layers))

    @property
    def top_names(self) -> dict[str, list[str]]:
        """For each layer the names of its tops, those that the definition leaves out included."""
        return {layer.name: list(names) for layer, names in zip(self.layers, self._top_names, strict=True)}

    @property
    def bottom_names(self) -> dict[str, list[str]]:
        """For each layer the names of its bottoms."""
        return {layer.name: list(names) for layer, names in zip(self.layers, self._bottom_names, strict=True)}

    @property
    def blob_loss_weights(self) -> dict[str, float]:
        """Weight of each blob in the loss."""
        weights = dict.fromkeys(self.blobs, 0.0)
        for layer, names in zip(self.layers, self._top_names, strict=True):
            weights.update(zip(names, layer.loss_weights, strict=True))
        return weights

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return self._blob_ids(self.inputs)

    @property
    def _outputs(self) -> list[int]:
        return self._blob_ids(self.outputs)

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._blob_ids(self._bottom_names[layer])

    def _top_ids(self, layer: int) -> list[int]:
        return self._blob_ids(self._top_names[layer])

    def _blob_ids(self, names: Sequence[str]) -> list[int]:
        known = list(self.blobs)
        return [known.index(name) for name in names]

    def _layer_index(self, name: str) -> int:
        # Caffe: of layers of one name the first.
        return self.layer_names.index(self.layer_dict[name].name)

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None,
                **inputs: npt.ArrayLike) -> Arrays:
        """Fill inputs by name, run forward, and return the outputs (pycaffe).

        Parameters
        ----------
        blobs : further blobs to return
        start, end : names of the first and last layer to run; with `end` its tops are returned, not the outputs
        inputs : for each input, all of them or none, an array of its blob's shape; axes of size 1 behind the first
            are repeated

        Raises
        ------
        NetError : names that the net does not have
        ShapeError : an input of another shape
        """
        first = 0 if start is None else self._layer_index(start)
        last = len(self.layers) - 1 if end is None else self._layer_index(end)
        if last < first:
            raise NetError(f"forward of net {self.name!r} is to end at {end!r} (layer {last}), which comes before its "
                           f"start {start!r} (layer {first}); exchange the two")
        if inputs and set(inputs) != set(self.inputs):
            raise NetError(f"forward of net {self.name!r} takes the inputs {self.inputs}, got {sorted(inputs)}")
        for name, array in inputs.items():
            given, shape = np.asarray(array), self.blobs[name].shape
            if not _fits(given.shape, shape):
                raise ShapeError(f"input {name!r} has shape {shape}, got an array of {given.shape}; "
                                 "give one of that shape (N, C, H, W: a batch axis first, channels before rows), or "
                                 f"reshape the blob first: net.blobs[{name!r}].reshape(N, C, H, W)")
            self.blobs[name].value.write(HOST)[...] = given
        self.forward_pass(first, last)
        self.settle()
        names = self.outputs if end is None else self._top_names[last]
        return {name: self.blobs[name].data for name in dict.fromkeys([*names, *(blobs or [])])}

    def backward(self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None,
                 **gradients: npt.ArrayLike) -> Arrays:
        """Fill gradients of outputs by name, run backward, and return those of the inputs (pycaffe).

        Parameters
        ----------
        diffs : further blobs whose gradients to return
        start, end : names of the layers to begin and to stop at, `start` being the later one; with `end` the
            gradients of its bottoms are returned, not those of the inputs
        gradients : an array of its blob's shape for each output
        """
        first = len(self.layers) - 1 if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        if first < last:
            raise NetError(f"backward of net {self.name!r} is to start at {start!r} (layer {first}), which comes "
                           f"before its end {end!r} (layer {last}); it runs from the later layer to the earlier: "
                           "exchange the two")
        for name, array in gradients.items():
            blob, given = self.blobs[name], np.asarray(array)
            if not _fits(given.shape, blob.shape):
                raise ShapeError(f"blob {name!r} has shape {blob.shape}, got a gradient of {given.shape}")
            blob.grad.write(HOST)[...] = given
        self.backward_pass(first, last)
        self.settle()
        names = self.inputs if end is None else self._bottom_names[last]
        return {name: self.blobs[name].diff for name in dict.fromkeys([*names, *(diffs or [])])}

    def _forward(self, start: int, end: int) -> float:
        """Run the layers of these numbers; return their loss."""
        self.forward_pass(start, end)
        return self.loss(start, end)

    def _backward(self, start: int, end: int) -> None:
        self.backward_pass(start, end)
        self.settle()

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: npt.NDArray[Any]) -> Arrays:
        """Run any number of items forward, as many batches as they take, and return the outputs of all.

        Parameters
        ----------
        blobs : further blobs to return
        inputs : for each input an array whose first axis counts the items, however many

        Raises
        ------
        NetError : no inputs, or numbers of items that differ
        ShapeError : a blob to return has no axis of items, as a loss has none
        """
        names = list(dict.fromkeys([*self.outputs, *(blobs or [])]))
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
        for batch in self._batch(inputs):
            self._keep(parts, self.forward(blobs=blobs, **batch))
        return _joined(parts, _items(inputs))

    def forward_backward_all(self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None,
                             **arrays: npt.NDArray[Any]) -> tuple[Arrays, Arrays]:
        """Run any number of items forward and backward, and return the outputs and the inputs' gradients of all.

        Parameters
        ----------
        blobs, diffs : further blobs whose values, and whose gradients, to return
        arrays : values for each input and gradients for outputs, whose first axis counts the items; without any
            for one of the two what the blobs hold is taken

        Raises
        ------
        NetError, ShapeError : as for `forward_all`
        """
        unknown = set(arrays) - set(self.inputs) - set(self.outputs)
        if unknown:
            raise NetError(f"net {self.name!r} has the inputs {self.inputs} and the outputs {self.outputs}, got arrays "
                           f"for {sorted(unknown)}")
        items = _items(arrays)
        values: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
        gradients: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in dict.fromkeys([*self.inputs, *(diffs or [])])}
        for batch in self._batch(arrays):
            self._keep(values, self.forward(blobs=blobs, **_only(batch, self.inputs)))
            self._keep(gradients, self.backward(diffs=diffs, **_only(batch, self.outputs)))
        return _joined(values, items), _joined(gradients, items)

    def _batch(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[dict[str, Any]]:
        """Cut arrays of items into batches of the net; the last one is filled up with zeros."""
        items, size = _items(arrays), next(iter(self.blobs.values())).shape[0]
        for start in range(0, items, size):
            batch = {name: np.asarray(array)[start:start + size] for name, array in arrays.items()}
            missing = start + size - items
            if missing > 0:
                batch = {name: np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
                         for name, part in batch.items()}
            yield batch

    def _keep(self, parts: dict[str, list[npt.NDArray[Any]]], results: Arrays) -> None:
        size = next(iter(self.blobs.values())).shape[0]
        for name, array in results.items():
            if array.shape[:1] != (size,):
                raise ShapeError(f"blob {name!r} of shape {array.shape} has no axis of the {size} items of a batch, so "
                                 "that the batches' cannot be joined; run batches of your own with forward()")
            parts[name].append(array.copy())

    def settle(self) -> None:
        """Let views of blobs that somebody may hold show what was computed; waits for the device only then.

        Such views stay current where the device works in the host's memory.
        """
        layers = (blob for layer in self.layers for blob in layer.blobs)
        if any(tensor.memory.seen for blob in (*self.blobs.values(), *layers) for tensor in (blob.value, blob.grad)):
            self.ops.finish()

    # ---- hooks ------------------------------------------------------------------------------

    def before_forward(self, hook: Hook) -> None:
        """Call `hook` with the layer's index before each layer's forward pass."""
        self.hooks[Moment.BEFORE_FORWARD].append(hook)

    def after_forward(self, hook: Hook) -> None:
        """Call `hook` with the layer's index after each layer's forward pass."""
        self.hooks[Moment.AFTER_FORWARD].append(hook)

    def before_backward(self, hook: Hook) -> None:
        """Call `hook` with the layer's index before each layer's turn backward, whether or not it has a pass."""
        self.hooks[Moment.BEFORE_BACKWARD].append(hook)

    def after_backward(self, hook: Hook) -> None:
        """Call `hook` with the layer's index after each layer's turn backward."""
        self.hooks[Moment.AFTER_BACKWARD].append(hook)

    def call_hooks(self, moment: Moment, index: int) -> None:
        """Call those of a moment."""
        for hook in self.hooks[moment]:
            hook(index)

    # ---- files and data ---------------------------------------------------------------------

    def save_hdf5(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write the parameters in Caffe's HDF5 layout, whatever the name ends in."""
        hdf5.write_weights(self.to_proto(write_diff), path)

    def load_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Copy parameters from an HDF5 file."""
        self.copy_trained_layers(hdf5.read_weights(path), os.fspath(path))

    def set_input_arrays(self, data: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Give the MemoryData layer, the first of the net, what its coming batches are cut from.

        Parameters
        ----------
        data : (N, C, H, W), N being a multiple of the layer's batch size
        labels : (N,) or (N, 1, 1, 1)

        Raises
        ------
        NetError : the net does not begin with such a layer
        ShapeError : arrays that do not fit it
        """
        first = self.layers[0] if self.layers else None
        if first is None or first.type != "MemoryData":
            what = f"begins with {first.name!r}, of type {first.type}" if first is not None else "has no layers"
            raise NetError(f"set_input_arrays feeds a MemoryData layer; net {self.name!r} {what}. Fill other nets by "
                           "net.blobs[name].data[...] or forward(name=array)")
        first.reset(data, labels)  # type: ignore[attr-defined]

    def _set_input_arrays(self, data: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        self.set_input_arrays(data, labels)


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array may fill a blob. Caffe: the batches' sizes must agree, the rest may be repeated."""
    return len(given) == len(shape) and given[:1] == shape[:1] and all(
        size in (1, wanted) for size, wanted in zip(given, shape, strict=True))


def _only(arrays: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: arrays[name] for name in names if name in arrays}


def _items(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """The number of items in each of the arrays."""
    counts = {name: np.asarray(array).shape[:1] for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or () in counts.values():
        told = ", ".join(f"{name} has {count[0] if count else 'no axis'}" for name, count in counts.items())
        raise NetError(f"give arrays with one number of items along their first axis; {told or 'none is given'}")
    return next(iter(counts.values()))[0]


def _joined(parts: Mapping[str, Sequence[npt.NDArray[Any]]], items: int) -> Arrays:
    """The batches of each blob behind one another, without what filled up the last one."""
    return {name: np.concatenate(batches)[:items] if batches else np.zeros(0) for name, batches in parts.items()}
