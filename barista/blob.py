"""Blobs: the arrays that flow through a net, wherever they happen to live.

A `Blob` is two `Tensor`s, ``value`` and ``grad``.  A tensor is a shape on a
`SyncedMemory`, which keeps a copy in each memory `Space` that asked for one and
moves the contents when, and only when, somebody reads them elsewhere.  People
see the tensors as the NumPy views ``blob.data`` and ``blob.diff``.
"""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NetError, ShapeError

Shape = tuple[int, ...]

# Caffe: blobs have at most 32 axes.
MAX_AXES = 32
# Caffe: and at most as many elements as a signed 32-bit integer counts.
MAX_COUNT = 2**31 - 1

# Where arrays of the host begin, so that devices may work in them: OpenCL's alignment for its largest vector.
ALIGNMENT_BYTES = 128


class Space(abc.ABC):
    """A memory in which arrays can live: the host's, or one device's.

    A device that computes in the host's own memory says so by ``shares_host``: its arrays then lie over the host's,
    and nothing travels between the two; the host only waits where it needs what the device has not done yet.

    Attributes
    ----------
    bytes_in, bytes_out : what travelled from and to the host
    """

    name: str
    shares_host: bool = False

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0

    @abc.abstractmethod
    def allocate(self, count: int, dtype: np.dtype[Any]) -> Any:
        """Return a flat array of `count` elements, contents undefined."""

    @abc.abstractmethod
    def view(self, array: Any, shape: Shape) -> Any:
        """Return the first elements of a flat array as an array of `shape` (C order), without a copy."""

    @abc.abstractmethod
    def upload(self, host: npt.NDArray[Any], array: Any) -> None:
        """Copy a flat host array into `array`; `host` may be reused on return."""

    @abc.abstractmethod
    def download(self, array: Any, host: npt.NDArray[Any]) -> None:
        """Copy `array` into a flat host array and wait until it is there."""

    @abc.abstractmethod
    def zero(self, array: Any) -> None:
        """Set all elements of a flat array to zero."""

    def send(self, host: npt.NDArray[Any], array: Any) -> None:
        """Copy a flat host array, which nobody changes any more, into `array`; it may be done only later."""
        self.upload(host, array)

    def over(self, host: npt.NDArray[Any]) -> Any:
        """Return an array that lies over a flat host array; only where `shares_host`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait until everything that was asked for so far is done."""
        return None


class HostSpace(Space):
    """The host's memory: arrays are `numpy.ndarray`."""

    name = "host"

    def allocate(self, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        nbytes = count * dtype.itemsize
        try:
            memory = np.empty(nbytes + ALIGNMENT_BYTES, np.uint8)
        except MemoryError:
            raise ShapeError(f"{count} numbers need {nbytes / 2**30:.2f} GiB, which this machine does not have left; "
                             "lower batch_size, or the sizes of the layer") from None
        start = -memory.ctypes.data % ALIGNMENT_BYTES
        return memory[start:start + nbytes].view(dtype)

    def view(self, array: npt.NDArray[Any], shape: Shape) -> npt.NDArray[Any]:
        return array[: math.prod(shape)].reshape(shape)

    def upload(self, host: npt.NDArray[Any], array: npt.NDArray[Any]) -> None:
        np.copyto(array, host)

    def download(self, array: npt.NDArray[Any], host: npt.NDArray[Any]) -> None:
        np.copyto(host, array)

    def zero(self, array: npt.NDArray[Any]) -> None:
        array.fill(0)


HOST = HostSpace()


class Access(enum.Enum):
    """What a caller does with the array that it asks for."""

    READ = "read"
    WRITE = "write"  # every element is overwritten: nothing needs to be moved
    UPDATE = "update"  # read and written


class SyncedMemory:
    """One flat buffer with a copy in every space that uses it, moved lazily.

    Caffe: SyncedMemory, with its heads HEAD_AT_CPU, HEAD_AT_GPU and SYNCED: here
    the set of spaces whose copy is current.  As there, memory that nobody has
    written reads as zeros, and so does memory that was cleared.

    Spaces that share the host's memory have one copy with it.  They work on it after they were asked, so everybody
    else waits for them before using it, unless all only read.

    Parameters
    ----------
    count, dtype : its size and element type
    by_turns : whether tensors lie on it that are never needed at one time: beyond each there is nothing to keep

    Attributes
    ----------
    seen : whether somebody outside may hold a view of the host's copy (see `show`)
    """

    def __init__(self, count: int, dtype: npt.DTypeLike, by_turns: bool = False) -> None:
        self.count = count
        self.dtype = np.dtype(dtype)
        self.by_turns = by_turns
        self.seen = False
        self._copies: dict[Space, Any] = {}
        self._current: set[Space] = set()
        # Spaces that share the host's memory and may still be at work on it.
        self._busy: set[Space] = set()

    @property
    def nbytes(self) -> int:
        """Size of one copy in bytes."""
        return self.count * self.dtype.itemsize

    @property
    def spaces(self) -> frozenset[Space]:
        """The spaces whose copy is current (empty: it reads as zeros)."""
        return frozenset(self._current)

    @property
    def is_zero(self) -> bool:
        """Whether nobody has written since it was made or cleared, so that it reads as zeros."""
        return not self._current

    def clear(self) -> None:
        """Let it read as zeros from here on; nothing is written before somebody asks for an array.

        Views that somebody holds show the zeros at once; where the only copy lies in the host's memory, what is written
        into them afterwards counts.
        """
        self._current.clear()
        if self.seen:
            self._wait(HOST)
            HOST.zero(self._copies[HOST])
            if all(space is HOST or space.shares_host for space in self._copies):
                self._current.add(HOST)

    def show(self) -> Any:
        """Return the host's array for somebody outside, who may keep it and write into it."""
        self.seen = True
        return self.array(HOST, Access.UPDATE)

    def array(self, space: Space, access: Access) -> Any:
        """Return the flat array of `space`, current for the `access` that is asked."""
        array = self._copies.get(space)
        if array is None:
            array = self._make(space)
        current, busy = self._current, self._busy
        if access is not Access.READ or space not in current:
            if len(busy) > (space in busy):
                self._wait(space)
            if access is not Access.WRITE and space not in current:
                self._fetch(space, array)
            if access is Access.READ:
                current.add(space)
            elif len(current) != 1 or space not in current:
                self._current = {space}
        if space.shares_host:
            self._busy.add(space)
        return array

    def assign(self, host: npt.NDArray[Any], space: Space) -> None:
        """Let the contents become those of a flat host array that nobody changes any more.

        Where `space` is a device's they are on their way when this returns.
        """
        array = self.array(space, Access.WRITE)
        if space is HOST:
            np.copyto(array, host)
        else:
            space.send(host, array)
            if not space.shares_host:
                space.bytes_in += self.nbytes

    def _make(self, space: Space) -> Any:
        if space.shares_host:
            array = space.over(self._host_copy())
        else:
            array = space.allocate(self.count, self.dtype)
        self._copies[space] = array
        return array

    def _host_copy(self) -> Any:
        if HOST not in self._copies:
            self._copies[HOST] = HOST.allocate(self.count, self.dtype)
        return self._copies[HOST]

    def _wait(self, user: Space | None) -> None:
        """Wait for the spaces that may still be at work on the host's memory; a `user` need not wait for itself."""
        for space in self._busy:
            if space is not user:
                space.finish()
        self._busy.intersection_update((user,))

    def _fetch(self, space: Space, array: Any) -> None:
        """Bring the current contents into `array`; everything travels through the host."""
        if not self._current:
            space.zero(array)
            return
        if not any(current is HOST or current.shares_host for current in self._current):
            self._wait(None)
            source = next(iter(self._current))
            source.download(self._copies[source], self._host_copy())
            source.bytes_out += self.nbytes
        # What a space that shares the host's memory made was waited for, so that the host has it too.
        self._current.add(HOST)
        if space is not HOST and not space.shares_host:
            space.upload(self._copies[HOST], array)
            space.bytes_in += self.nbytes


class Tensor:
    """A shape on a `SyncedMemory`: what layers hand to primitives.

    Several tensors may lie on one memory (Split, Reshape, shared parameters).

    Attributes
    ----------
    shape, count : its sizes, and its number of elements
    memory : what it lies on
    """

    __slots__ = ("_views", "count", "memory", "shape")

    def __init__(self, shape: Shape, dtype: npt.DTypeLike, memory: SyncedMemory | None = None) -> None:
        self.shape = shape
        self.count = math.prod(shape)
        self.memory = memory if memory is not None else SyncedMemory(math.prod(shape), dtype)
        self._views: dict[Space, Any] = {}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.memory.dtype

    def reshape(self, shape: Shape) -> None:
        """Take another shape; the memory is kept where it is large enough.

        Caffe: Blob::Reshape, which only ever grows.
        """
        if shape == self.shape:
            return
        self.shape, self.count = shape, math.prod(shape)
        if self.count > self.memory.count:
            self.memory = SyncedMemory(self.count, self.memory.dtype)
        self._views.clear()

    def share(self, other: Tensor) -> None:
        """Lie on the memory of `other` from now on, keeping this tensor's shape."""
        if other.memory.count < self.count:
            raise ShapeError(f"a tensor of shape {self.shape} cannot share the {other.memory.count} elements "
                             f"of one of shape {other.shape}")
        self.lie_on(other.memory)

    def lie_on(self, memory: SyncedMemory) -> None:
        """Lie on `memory`, which is large enough, from now on."""
        if self.memory is not memory:
            self.memory = memory
            self._views.clear()

    def read(self, space: Space) -> Any:
        """The array in `space`, for reading."""
        return self._view(space, Access.READ)

    def write(self, space: Space) -> Any:
        """The array in `space`, about to be overwritten completely."""
        return self._view(space, Access.WRITE)

    def update(self, space: Space) -> Any:
        """The array in `space`, to be read and written."""
        return self._view(space, Access.UPDATE)

    def accumulate(self, space: Space) -> tuple[Any, bool]:
        """The array in `space`, to be added to, and whether it stands for zeros.

        Then its contents are undefined: whoever adds overwrites it instead, which saves writing and reading zeros.
        """
        fresh = self.memory.is_zero
        return (self.write(space) if fresh else self.update(space)), fresh

    def assign(self, values: npt.NDArray[Any], space: Space) -> None:
        """Let the contents become those of a host array of this shape that nobody changes any more.

        Primitives in `space` see them from here on; a device takes them over while the host goes on.
        """
        flat = np.ascontiguousarray(values, self.dtype).reshape(-1)
        if flat.size != self.count:
            raise ShapeError(f"a tensor of shape {self.shape} cannot take the values of an array of {values.shape}")
        if self.count == self.memory.count:
            self.memory.assign(flat, space)
        else:
            self.write(HOST)[...] = flat.reshape(self.shape)

    def clear(self) -> None:
        """Let the memory that it lies on read as zeros."""
        self.memory.clear()

    def show(self) -> npt.NDArray[Any]:
        """The host's array for somebody outside, who may keep it and write into it."""
        return HOST.view(self.memory.show(), self.shape)

    def _view(self, space: Space, access: Access) -> Any:
        # A memory larger than the tensor (after a reshape to less) keeps what lies beyond it.
        if access is Access.WRITE and self.count < self.memory.count and not self.memory.by_turns:
            access = Access.UPDATE
        array = self.memory.array(space, access)
        view = self._views.get(space)
        if view is None:
            view = self._views[space] = space.view(array, self.shape)
        return view


def as_shape(dims: Sequence[int], who: str = "blob") -> Shape:
    """Return `dims` as a shape after checking it.

    Raises
    ------
    ShapeError : more than 32 axes, a negative size, or more elements than a blob can have
    """
    shape = tuple(int(d) for d in dims)
    if len(shape) > MAX_AXES:
        raise ShapeError(f"{who}: {len(shape)} axes; a blob has at most {MAX_AXES}")
    if any(d < 0 for d in shape):
        raise ShapeError(f"{who}: shape {shape} has a negative size; give sizes of 0 or more")
    # NumPy counts so too: a size of 0 beside one beyond the limit makes an array that it cannot reshape.
    count = math.prod(max(d, 1) for d in shape)
    if count > MAX_COUNT:
        raise ShapeError(f"{who}: shape {shape} asks for {count} elements; the limit is 2**31 - 1")
    return shape


class Blob:
    """An array and its gradient, as Caffe names them: data and diff.

    Parameters
    ----------
    shape : sizes of the axes, for images (N, C, H, W)
    dtype : float32, or float64 for gradient checks
    name : in its net, for messages

    Attributes
    ----------
    value, grad : the `Tensor`s that layers and primitives use
    data, diff : writable NumPy views of them on the host (C order)
    """

    __slots__ = ("grad", "name", "value")

    def __init__(self, shape: Sequence[int] = (), dtype: npt.DTypeLike = np.float32, name: str = "") -> None:
        self.name = name
        checked = as_shape(shape)
        self.value = Tensor(checked, dtype)
        self.grad = Tensor(checked, dtype)

    @classmethod
    def of(cls, value: Tensor, grad: Tensor) -> Blob:
        """A blob of two existing tensors."""
        blob = cls.__new__(cls)
        blob.value, blob.grad, blob.name = value, grad, ""
        return blob

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of both tensors."""
        return self.value.dtype

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.value.count

    @property
    def data(self) -> npt.NDArray[Any]:
        """The values on the host, a writable view.

        Caffe: asking for the view moves the head to the host, since the caller may write. A view that is kept stays
        the blob's as long as no reshape needs more memory; on a device of its own memory, ask again after a pass.
        """
        return self._seen(self.value, "values")

    @property
    def diff(self) -> npt.NDArray[Any]:
        """The gradients on the host, a writable view, as `data`."""
        return self._seen(self.grad, "gradients")

    def _seen(self, tensor: Tensor, what: str) -> npt.NDArray[Any]:
        """The view of a tensor that people see; refused where it may hold another one's numbers by now."""
        if tensor.memory.by_turns:
            which = f"blob {self.name!r} of" if self.name else "this blob of"
            raise NetError(f"the {what} of {which} shape {self.shape} are gone: its net plans its memory, and "
                           "other blobs have taken its place since; make the net with plan_memory=False to read all "
                           "blobs after a step")
        return tensor.show()

    def reshape(self, *dims: int | Sequence[int]) -> None:
        """Change the shape, given as sizes or as one sequence of them; memory grows but never shrinks."""
        one = dims[0] if len(dims) == 1 else dims
        shape = as_shape(one if isinstance(one, tuple | list) else dims)  # type: ignore[arg-type]
        self.value.reshape(shape)
        self.grad.reshape(shape)

    def axis(self, index: int) -> int:
        """Return the canonical axis of a possibly negative `index`.

        Raises
        ------
        ShapeError : the blob has no such axis
        """
        axes = len(self.shape)
        if not -axes <= index < axes:
            raise ShapeError(f"axis {index} does not exist in a blob of {axes} axes, shape {self.shape}; "
                             f"give {-axes} to {axes - 1}")
        return index % axes

    def _legacy(self, index: int) -> int:
        # Caffe: num, channels, height and width of a blob with fewer than four axes are 1.
        if len(self.shape) > 4:
            raise ShapeError("num, channels, height and width exist for up to 4 axes; "
                             f"this blob has shape {self.shape}")
        return self.shape[index] if index < len(self.shape) else 1

    @property
    def num(self) -> int:
        """Size of axis 0 (1 where it is missing)."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """Size of axis 1 (1 where it is missing)."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """Size of axis 2 (1 where it is missing)."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """Size of axis 3 (1 where it is missing)."""
        return self._legacy(3)

    def __repr__(self) -> str:
        return f"Blob(shape={self.shape}, dtype={self.dtype})"
