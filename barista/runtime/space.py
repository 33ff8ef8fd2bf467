"""Device memory as a `Space` in which blobs can live."""

from __future__ import annotations

import collections
import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blob import Shape, Space
from ..errors import DeviceError
from .context import Context
from .driver import cl
from .errors import device_error

# Kernels index with 32-bit integers.
MAX_COUNT = 2**31 - 1


class DeviceArray:
    """A buffer on a device seen as an array: C order, from the buffer's first byte.

    Attributes
    ----------
    buffer : the OpenCL buffer
    shape, dtype : as of a NumPy array
    """

    __slots__ = ("buffer", "dtype", "shape")

    def __init__(self, buffer: cl.Buffer, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.buffer, self.shape, self.dtype = buffer, shape, dtype

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


# How many arrays may be on their way to the device before `send` waits for the first of them.
MAX_SENT = 4


class OpenCLSpace(Space):
    """The memory of one OpenCL device; arrays are `DeviceArray`.

    Transfers go through the device's queue, so they come after everything that was enqueued
    before them; all but `send` wait for it.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.name = f"OpenCL device {context.name}"
        self.shares_host = context.shares_host
        # What `send` copies, each array with the event that ends its copy.
        self._sent: collections.deque[tuple[cl.Event, npt.NDArray[Any]]] = collections.deque()

    def allocate(self, count: int, dtype: np.dtype[Any]) -> DeviceArray:
        """Return a flat array.

        Raises
        ------
        DeviceError : larger than the device allows, or no memory is left
        """
        nbytes = count * dtype.itemsize
        limit = self._context.device.max_mem_alloc_size
        if nbytes > limit or count > MAX_COUNT:
            raise DeviceError(f"{self.name}: an array of {count} {dtype} ({nbytes} bytes) exceeds the limit of "
                              f"{limit} bytes and {MAX_COUNT} elements for one array; lower the batch size")
        try:
            # OpenCL has no empty buffers.
            buffer = cl.Buffer(self._context.handle, cl.mem_flags.READ_WRITE, max(nbytes, dtype.itemsize))
        except cl.Error as error:
            raise device_error(error, f"{self.name}: allocating {nbytes} bytes") from error
        return DeviceArray(buffer, (count,), dtype)

    def view(self, array: DeviceArray, shape: Shape) -> DeviceArray:
        """The first elements of `array` under another shape, on the same buffer."""
        if math.prod(shape) > math.prod(array.shape):
            raise ValueError(f"shape {shape} does not fit into an array of {array.shape}")
        return DeviceArray(array.buffer, shape, array.dtype)

    def upload(self, host: npt.NDArray[Any], array: DeviceArray) -> None:
        """Copy from the host; returns when `host` has been read."""
        if host.size:
            self._copy("write", array.buffer, host, f"uploading {host.nbytes} bytes")

    def download(self, array: DeviceArray, host: npt.NDArray[Any]) -> None:
        """Copy to the host; returns when everything is there."""
        if host.size:
            self._copy("read", host, array.buffer, f"downloading {host.nbytes} bytes")

    def send(self, host: npt.NDArray[Any], array: DeviceArray) -> None:
        """Enqueue a copy from the host, and keep `host` until it is done.

        With more than a few under way it waits for the first, so that the host does not run
        ahead of the device without end.
        """
        if not host.size:
            return
        sent = self._sent
        try:
            while sent and (len(sent) >= MAX_SENT or _is_done(sent[0][0])):
                sent[0][0].wait()
                sent.popleft()
            event = cl.enqueue_copy(self._context.queue, array.buffer, host, is_blocking=False)
        except cl.Error as error:
            raise device_error(error, f"{self.name}: sending {host.nbytes} bytes") from error
        sent.append((event, host))
        self._context.note("write", event)

    def over(self, host: npt.NDArray[Any]) -> DeviceArray:
        """An array over a flat array of the host, on a device that works in the host's memory."""
        if not host.size:
            return self.allocate(0, host.dtype)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        try:
            buffer = cl.Buffer(self._context.handle, flags, hostbuf=host)
        except cl.Error as error:
            raise device_error(error, f"{self.name}: a buffer over {host.nbytes} bytes of the host") from error
        # Kernels that were enqueued may still use the memory when nobody else does any more.
        weakref.finalize(host if host.base is None else host.base, self._context.finish)
        return DeviceArray(buffer, (host.size,), host.dtype)

    def finish(self) -> None:
        """Wait until everything in the queue is done."""
        self._context.finish()

    def zero(self, array: DeviceArray) -> None:
        """Enqueue zeros for all elements; returns at once."""
        nbytes = math.prod(array.shape) * array.dtype.itemsize
        if not nbytes:
            return
        try:
            self._context.note("kernel", cl.enqueue_fill_buffer(
                self._context.queue, array.buffer, np.zeros(1, array.dtype), 0, nbytes))
        except cl.Error as error:
            raise device_error(error, f"{self.name}: zeros for {nbytes} bytes") from error

    def _copy(self, stage: str, target: Any, source: Any, doing: str) -> None:
        try:
            self._context.note(stage, cl.enqueue_copy(self._context.queue, target, source, is_blocking=True))
        except cl.Error as error:
            raise device_error(error, f"{self.name}: {doing}") from error


def _is_done(event: cl.Event) -> bool:
    return bool(event.command_execution_status <= cl.command_execution_status.COMPLETE)
