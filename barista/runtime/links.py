"""How tiles travel between the host's memory and a device's: copied, or migrated where the driver asks for it.

Both kinds give a buffer for each of a few *slots* (``a0``, ``b``, ``c1``, ...), which is what a kernel is bound to.  An
operand that is in its slot already is not sent again until `begin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from .context import Context
from .driver import cl

Array = npt.NDArray[Any]


class Link(Protocol):
    """A way between host and device.  Errors are pyopencl's; the caller knows what was being done."""

    def begin(self) -> None:
        """Forget what the slots hold: host memory may have changed."""
        ...

    def release(self) -> None:
        """Give all buffers back."""
        ...

    def send(self, queue: cl.CommandQueue, slot: str, array: Array,
             after: Sequence[cl.Event]) -> tuple[cl.Buffer, list[cl.Event]]:
        """Enqueue the transfer of an operand; returns its buffer and the events to wait for, none where it is there."""
        ...

    def room(self, slot: str, array: Array) -> cl.Buffer:
        """Return a buffer for a result of the size of `array`."""
        ...

    def fetch(self, queue: cl.CommandQueue, slot: str, array: Array, after: Sequence[cl.Event]) -> cl.Event:
        """Enqueue the transfer of a result into `array`."""
        ...


def _key(array: Array) -> tuple[int, int]:
    return int(array.ctypes.data), array.nbytes


class CopyLink(Link):
    """Buffers on the device that grow when needed, and copies into and out of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._buffers: dict[str, cl.Buffer] = {}
        self._holds: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        self._holds.clear()

    def release(self) -> None:
        self._holds.clear()
        self._buffers.clear()

    def send(self, queue: cl.CommandQueue, slot: str, array: Array,
             after: Sequence[cl.Event]) -> tuple[cl.Buffer, list[cl.Event]]:
        buffer = self.room(slot, array)
        if self._holds.get(slot) == _key(array):
            return buffer, []
        self._holds.pop(slot, None)
        event = cl.enqueue_copy(queue, buffer, array, is_blocking=False, wait_for=list(after))
        self._holds[slot] = _key(array)
        return buffer, [event]

    def room(self, slot: str, array: Array) -> cl.Buffer:
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.size < array.nbytes:
            self._holds.pop(slot, None)
            # The old one goes first: the device may not hold both.
            self._buffers.pop(slot, None)
            buffer = None
            buffer = self._buffers[slot] = cl.Buffer(self._context.handle, cl.mem_flags.READ_WRITE, array.nbytes)
        return buffer

    def fetch(self, queue: cl.CommandQueue, slot: str, array: Array, after: Sequence[cl.Event]) -> cl.Event:
        return cl.enqueue_copy(queue, array, self._buffers[slot], is_blocking=False, wait_for=list(after))


class MigrateLink(Link):
    """Buffers over the host's own arrays that the driver migrates, as Xilinx's runtime wants it.

    Arrays at page boundaries travel without another copy.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        # The array is kept: its memory must outlive the buffer over it.
        self._buffers: dict[str, tuple[Array, cl.Buffer]] = {}
        self._sent: set[str] = set()

    def begin(self) -> None:
        self._sent.clear()

    def release(self) -> None:
        self._sent.clear()
        self._buffers.clear()

    def send(self, queue: cl.CommandQueue, slot: str, array: Array,
             after: Sequence[cl.Event]) -> tuple[cl.Buffer, list[cl.Event]]:
        buffer = self.room(slot, array)
        if slot in self._sent:
            return buffer, []
        event = cl.enqueue_migrate_mem_objects(queue, [buffer], flags=0, wait_for=list(after))
        self._sent.add(slot)
        return buffer, [event]

    def room(self, slot: str, array: Array) -> cl.Buffer:
        held = self._buffers.get(slot)
        if held is not None and _key(held[0]) == _key(array):
            return held[1]
        self._sent.discard(slot)
        self._buffers.pop(slot, None)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        buffer = cl.Buffer(self._context.handle, flags, hostbuf=array)
        self._buffers[slot] = array, buffer
        return buffer

    def fetch(self, queue: cl.CommandQueue, slot: str, array: Array, after: Sequence[cl.Event]) -> cl.Event:
        return cl.enqueue_migrate_mem_objects(queue, [self._buffers[slot][1]], flags=cl.mem_migration_flags.HOST,
                                              wait_for=list(after))
