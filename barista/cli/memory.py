"""What a network takes of memory, from its shapes and its op set's primitives, before anything is computed."""

from __future__ import annotations

import dataclasses

from ..memory_plan import apart
from ..net import Net
from ..ops.base import Owner
from ..proto.caffe_pb2 import TRAIN

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that a net takes while it runs.

    Attributes
    ----------
    parameters, parameter_gradients, history : of what is learnt; history is the solver's, all its arrays together
    values, gradients : of the blobs between the layers, each in memory of its own
    saved : what blobs that take turns on memory save of these two
    held : what layers keep besides, each for itself, and what their primitives on the backend do
    shared : what the backend's primitives use in turn
    """

    parameters: int
    parameter_gradients: int
    history: int
    values: int
    gradients: int
    saved: int
    held: int
    shared: int

    @property
    def blobs(self) -> int:
        """Values and gradients, taking turns."""
        return self.values + self.gradients - self.saved

    @property
    def workspace(self) -> int:
        """What is neither a parameter's nor a blob's."""
        return self.held + self.shared

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.parameter_gradients + self.history + self.blobs + self.workspace

    def __str__(self) -> str:
        parts = [f"parameters {mib(self.parameters)}"]
        if self.parameter_gradients:
            parts.append(f"their gradients {mib(self.parameter_gradients)}")
        if self.history:
            parts.append(f"the solver's history {mib(self.history)}")
        parts += [f"blobs {mib(self.blobs)}", f"workspace {mib(self.workspace)}"]
        return f"{mib(self.total)} MiB: {', '.join(parts)}"


def memory_of(net: Net, moments: int = 0) -> Memory:
    """What `net` takes; `moments` is the number of arrays that a solver keeps for each parameter."""
    size = net.ops.dtype.itemsize
    trains = net.phase == TRAIN
    values, gradients = apart(net.uses(), {name: blob.count for name, blob in net.blobs.items()}, trains)
    parameters = size * sum(item.blob.count for item in net.learnable)
    # A parameter that is not learnt has no gradient, but the solver remembers something of every one.
    learnt = size * sum(item.blob.count for item in net.learnable if item.lr_mult) if trains else 0
    return Memory(parameters, learnt, moments * parameters, size * values, size * gradients,
                  size * net.memory_plan().saved_count, sum(held_by_layers(net).values()),
                  net.ops.workspace().shared)


def held_by_layers(net: Net) -> dict[str, int]:
    """Bytes that the layers of each name and their primitives hold, besides parameters and blobs."""
    held = net.ops.workspace().held
    bytes_of = {name: held.get(Owner(net.name, net.phase, name), 0) for name in net.layer_names}
    for layer in net.layers:
        bytes_of[layer.name] += layer.scratch_bytes
    return bytes_of


def batch_size(net: Net) -> int | None:
    """Images of a batch, as the first blob says; None for a net without blobs of axes."""
    return next((blob.shape[0] for blob in net.blobs.values() if blob.shape), None)


def mib(number: int) -> str:
    """Bytes in MiB, to a tenth."""
    return f"{number / MIB:,.1f}"
