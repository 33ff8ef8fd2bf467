"""Device memory as a `Space` in which blobs can live."""

from __future__ import annotations

import math
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


class OpenCLSpace(Space):
    """The memory of one OpenCL device; arrays are `DeviceArray`.

    Transfers go through the device's queue and wait for it, so they come after everything
    that was enqueued before them.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self.name = f"OpenCL device {context.name}"

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

    def copy_rows(self, source: DeviceArray, source_pitch: int, source_offset: int, target: DeviceArray,
                  target_pitch: int, target_offset: int, row: int, rows: int) -> None:
        """Enqueue a copy of `rows` rows of `row` elements, which begin a pitch apart; returns at once."""
        if not row * rows:
            return
        size = source.dtype.itemsize
        try:
            self._context.note("kernel", cl.enqueue_copy(
                self._context.queue, target.buffer, source.buffer, src_origin=(source_offset * size, 0, 0),
                dst_origin=(target_offset * size, 0, 0), region=(row * size, rows, 1),
                src_pitches=(source_pitch * size,), dst_pitches=(target_pitch * size,)))
        except cl.Error as error:
            raise device_error(error, f"{self.name}: copying {rows} rows of {row} elements") from error

    def _copy(self, stage: str, target: Any, source: Any, doing: str) -> None:
        try:
            self._context.note(stage, cl.enqueue_copy(self._context.queue, target, source, is_blocking=True))
        except cl.Error as error:
            raise device_error(error, f"{self.name}: {doing}") from error
