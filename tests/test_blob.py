"""Blobs, tensors and the memory that follows its readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from barista.blob import HOST, Access, Blob, HostSpace, Space, SyncedMemory, Tensor, as_shape
from barista.errors import NetError, ShapeError


class Far(HostSpace):
    """A second memory, which counts what is moved to and from it."""

    name = "far"

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def allocate(self, count: int, dtype: np.dtype[Any]) -> Any:
        self.log.append(f"allocate {count}")
        return np.full(count, -99, dtype)  # what was there before must never be seen

    def upload(self, host: Any, array: Any) -> None:
        self.log.append("upload")
        super().upload(host, array)

    def download(self, array: Any, host: Any) -> None:
        self.log.append("download")
        super().download(array, host)


class Late(HostSpace):
    """A device in the host's memory that does what it was asked for only when somebody waits for it."""

    name = "late"
    shares_host = True

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Callable[[], None]] = []
        self.waits = 0

    def over(self, host: Any) -> Any:
        return host[:]

    def finish(self) -> None:
        self.waits += bool(self.queue)
        for command in self.queue:
            command()
        self.queue.clear()

    def zero(self, array: Any) -> None:
        self.queue.append(lambda: array.fill(0))

    def send(self, host: Any, array: Any) -> None:
        self.queue.append(lambda: np.copyto(array, host))

    def add(self, target: Any, source: Any, number: float) -> None:
        """target = source + number, later."""
        self.queue.append(lambda: np.copyto(target, source + number))

    upload = download = None  # type: ignore[assignment]  # nothing travels


# ---- memory -----------------------------------------------------------------------------------------------


def test_nothing_is_allocated_before_it_is_used() -> None:
    far = Far()
    memory = SyncedMemory(10**11, np.float32)  # far beyond this machine
    assert memory.nbytes == 4 * 10**11
    assert memory.spaces == frozenset()
    assert far.log == []


def test_unwritten_memory_reads_as_zeros() -> None:
    for space in (HOST, Far()):
        memory = SyncedMemory(3, np.float32)
        assert memory.array(space, Access.READ).tolist() == [0, 0, 0]
        memory = SyncedMemory(3, np.float32)
        assert memory.array(space, Access.UPDATE).tolist() == [0, 0, 0]


def test_moves_when_and_only_when_read_elsewhere() -> None:
    far, memory = Far(), SyncedMemory(2, np.float32)
    memory.array(HOST, Access.WRITE)[:] = [1, 2]
    assert memory.spaces == {HOST}
    assert memory.array(far, Access.READ).tolist() == [1, 2]
    assert memory.spaces == {HOST, far}  # Caffe: SYNCED
    memory.array(far, Access.READ)
    memory.array(HOST, Access.READ)
    assert far.log == ["allocate 2", "upload"]
    memory.array(far, Access.UPDATE)[:] += 1
    assert memory.spaces == {far}  # Caffe: HEAD_AT_GPU
    assert memory.array(HOST, Access.READ).tolist() == [2, 3]
    assert far.log == ["allocate 2", "upload", "download"]
    assert (far.bytes_in, far.bytes_out) == (8, 8)


def test_write_moves_nothing() -> None:
    far, memory = Far(), SyncedMemory(2, np.float32)
    memory.array(HOST, Access.WRITE)[:] = 5
    memory.array(far, Access.WRITE)[:] = 7
    assert memory.spaces == {far}
    assert far.log == ["allocate 2"]
    assert memory.array(HOST, Access.READ).tolist() == [7, 7]
    memory.array(HOST, Access.UPDATE)[:] = 8
    assert memory.spaces == {HOST}


def test_between_two_devices_through_the_host() -> None:
    one, two, memory = Far(), Far(), SyncedMemory(2, np.float64)
    memory.array(one, Access.WRITE)[:] = [3, 4]
    assert memory.array(two, Access.READ).tolist() == [3, 4]
    assert memory.spaces == {one, two, HOST}
    assert (one.bytes_out, two.bytes_in) == (16, 16)
    # The host's copy is current now, so that nothing needs to come back.
    memory.array(HOST, Access.READ)
    assert one.log.count("download") == 1


# ---- a device in the host's memory ------------------------------------------------------------------------


def test_a_device_in_the_host_s_memory_has_no_copy_of_its_own() -> None:
    late, memory = Late(), SyncedMemory(2, np.float32)
    memory.array(HOST, Access.WRITE)[:] = [1, 2]
    array = memory.array(late, Access.UPDATE)
    assert np.shares_memory(array, memory.array(HOST, Access.READ))
    assert (late.bytes_in, late.bytes_out) == (0, 0)


def test_the_host_waits_for_what_it_reads_and_for_what_still_reads() -> None:
    late, one, two = Late(), SyncedMemory(1, np.float32), SyncedMemory(1, np.float32)
    one.array(HOST, Access.WRITE)[:] = 1
    late.add(two.array(late, Access.WRITE), one.array(late, Access.READ), 10)
    assert one.array(HOST, Access.READ).tolist() == [1] and late.waits == 0  # both only read
    one.array(HOST, Access.UPDATE)[:] = 5
    assert late.waits == 1  # the device had yet to read the 1
    assert two.array(HOST, Access.READ).tolist() == [11]
    assert two.spaces == {late, HOST}
    late.add(one.array(late, Access.UPDATE), one.array(late, Access.READ), 1)
    assert one.array(HOST, Access.READ).tolist() == [6]
    assert late.waits == 2
    one.array(HOST, Access.WRITE)
    one.array(HOST, Access.UPDATE)
    assert late.waits == 2  # nothing was asked for since


def test_cleared_memory_is_not_zeroed_under_a_device_that_reads_it() -> None:
    late, one, two = Late(), SyncedMemory(1, np.float32), SyncedMemory(1, np.float32)
    one.array(HOST, Access.WRITE)[:] = 7
    late.add(two.array(late, Access.WRITE), one.array(late, Access.READ), 0)
    one.clear()
    assert one.array(HOST, Access.READ).tolist() == [0]
    assert two.array(HOST, Access.READ).tolist() == [7]
    one.clear()
    one.array(late, Access.READ)
    assert one.array(HOST, Access.READ).tolist() == [0]


def test_devices_in_the_host_s_memory_wait_for_each_other() -> None:
    first, second, far = Late(), Late(), Far()
    one, two = SyncedMemory(1, np.float32), SyncedMemory(1, np.float32)
    first.add(one.array(first, Access.WRITE), np.float32([1]), 0)
    second.add(two.array(second, Access.WRITE), one.array(second, Access.READ), 1)
    assert (first.waits, second.waits) == (1, 0)
    first.add(one.array(first, Access.WRITE), np.float32([50]), 0)
    assert second.waits == 1  # it had yet to read the 1
    assert one.array(far, Access.READ).tolist() == [50]
    assert two.array(far, Access.READ).tolist() == [2]
    # Another device's numbers arrive where a third one is still reading.
    two.array(far, Access.WRITE)[:] = 3
    first.add(one.array(first, Access.WRITE), two.array(first, Access.READ), 4)
    two.array(far, Access.WRITE)[:] = 9
    assert two.array(second, Access.READ).tolist() == [9]
    assert one.array(HOST, Access.READ).tolist() == [7]


def test_values_that_nobody_changes_are_taken_over_later() -> None:
    for space in (HOST, Far(), Late()):
        tensor = Tensor((2, 2), np.float32)
        tensor.assign(np.array([[1, 2], [3, 4]]), space)  # of another type
        assert tensor.memory.spaces == {space}
        assert tensor.read(HOST).tolist() == [[1, 2], [3, 4]]
        tensor.reshape((1, 2))
        tensor.assign(np.float32([[5, 6]]), space)
        tensor.reshape((2, 2))
        assert tensor.read(HOST).tolist() == [[5, 6], [3, 4]]
        with pytest.raises(ShapeError, match=r"shape \(2, 2\) cannot take the values of an array of \(3,\)"):
            tensor.assign(np.zeros(3), space)


# ---- tensors ----------------------------------------------------------------------------------------------


def test_views_have_the_tensor_s_shape() -> None:
    tensor = Tensor((2, 3), np.float32)
    tensor.write(HOST)[...] = np.arange(6).reshape(2, 3)
    assert tensor.read(HOST).shape == (2, 3)
    tensor.reshape((3, 2))
    assert tensor.read(HOST).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (tensor.count, tensor.dtype) == (6, np.float32)


def test_reshape_grows_but_never_shrinks_the_memory() -> None:
    tensor = Tensor((6,), np.float32)
    tensor.write(HOST)[...] = range(6)
    memory = tensor.memory
    tensor.reshape((2,))
    assert tensor.memory is memory
    assert tensor.read(HOST).tolist() == [0, 1]
    tensor.reshape((2, 3))
    assert tensor.memory is memory
    tensor.reshape((7,))
    assert tensor.memory is not memory
    assert tensor.read(HOST).tolist() == [0] * 7


def test_writing_a_smaller_shape_keeps_the_rest() -> None:
    far = Far()
    tensor = Tensor((4,), np.float32)
    tensor.write(HOST)[...] = [1, 2, 3, 4]
    tensor.reshape((2,))
    tensor.write(far)[...] = [8, 9]
    tensor.reshape((4,))
    assert tensor.read(HOST).tolist() == [8, 9, 3, 4]


def test_tensors_on_one_memory() -> None:
    one, two = Tensor((2, 3), np.float32), Tensor((3, 2), np.float32)
    two.read(HOST)  # a view of the memory that it has before
    two.share(one)
    one.write(HOST)[...] = [[1, 2, 3], [4, 5, 6]]
    assert two.read(HOST).tolist() == [[1, 2], [3, 4], [5, 6]]
    two.update(HOST)[0, 0] = 9
    assert one.read(HOST)[0, 0] == 9


def test_sharing_needs_room() -> None:
    small, big = Tensor((2,), np.float32), Tensor((2, 2), np.float32)
    with pytest.raises(ShapeError, match=r"shape \(2, 2\) cannot share the 2 elements of one of shape \(2,\)"):
        big.share(small)
    small.share(big)


# ---- blobs ------------------------------------------------------------------------------------------------


def test_data_and_diff_are_writable_views() -> None:
    blob = Blob((2, 3), np.float64)
    blob.data[1, 2] = 5
    blob.diff[...] = 7
    assert blob.data[1, 2] == 5
    assert blob.diff.tolist() == [[7] * 3] * 2
    assert blob.data.dtype == blob.dtype == np.float64
    assert blob.data.flags.c_contiguous


def test_asking_for_data_makes_the_host_the_head() -> None:
    far, blob = Far(), Blob((2,))
    blob.value.write(far)[...] = 3
    blob.data[0] = 4
    assert blob.value.memory.spaces == {HOST}
    assert blob.value.read(far).tolist() == [4, 3]


def test_gradient_is_not_materialised_by_the_value() -> None:
    blob = Blob((5,))
    blob.data[...] = 1
    blob.reshape(3)
    assert blob.grad.memory.spaces == frozenset()
    assert blob.grad.shape == (3,)


def test_scalars() -> None:
    blob = Blob()
    assert (blob.shape, blob.count) == ((), 1)
    blob.data[...] = 2.5
    assert float(blob.data) == 2.5
    blob.reshape(2, 2)
    blob.reshape()
    assert blob.shape == ()


def test_axes_of_old() -> None:
    assert (Blob((5, 6)).num, Blob((5, 6)).channels, Blob((5, 6)).height, Blob((5, 6)).width) == (5, 6, 1, 1)
    with pytest.raises(ShapeError, match=r"up to 4 axes; this blob has shape \(1, 2, 3, 4, 5\)"):
        _ = Blob((1, 2, 3, 4, 5)).height


def test_canonical_axis() -> None:
    blob = Blob((2, 3, 4))
    assert [blob.axis(i) for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for wrong in (3, -4):
        with pytest.raises(ShapeError, match=rf"axis {wrong} does not exist .* \(2, 3, 4\); give -3 to 2"):
            blob.axis(wrong)


@pytest.mark.parametrize(("shape", "message"), [
    ((1,) * 33, "33 axes; a blob has at most 32"),
    ((2, -3), r"shape \(2, -3\) has a negative size"),
    ((2**21, 2**20), r"asks for 2199023255552 elements; the limit is 2\*\*31 - 1"),
])
def test_shapes_refused(shape: tuple[int, ...], message: str) -> None:
    for make in (lambda: as_shape(shape), lambda: Blob(shape), lambda: Blob().reshape(*shape)):
        with pytest.raises(ShapeError, match=message):
            make()
    with pytest.raises(NetError):
        as_shape(shape)


def test_shapes_taken() -> None:
    assert as_shape([np.int64(2), 0, 3]) == (2, 0, 3)
    assert len(as_shape((1,) * 32)) == 32
    assert Blob((0, 5)).data.shape == (0, 5)


def test_blob_of_tensors() -> None:
    value, grad = Tensor((2,), np.float32), Tensor((2,), np.float32)
    blob = Blob.of(value, grad)
    blob.data[...] = 4
    assert value.read(HOST).tolist() == [4, 4]
    assert repr(blob) == "Blob(shape=(2,), dtype=float32)"


def test_a_space_must_say_how_it_moves() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Space()  # type: ignore[abstract]


def test_cleared_memory_reads_as_zeros_and_is_overwritten_by_the_first_sum() -> None:
    for space in (HOST, Far()):
        tensor = Tensor((2,), np.float32)
        tensor.write(space)[...] = [1, 2]
        array, fresh = tensor.accumulate(space)
        assert not fresh and array.tolist() == [1, 2]
        tensor.clear()
        array, fresh = tensor.accumulate(space)
        assert fresh
        array[...] = [3, 4]
        assert tensor.accumulate(space)[1] is False
        assert tensor.read(HOST).tolist() == [3, 4]
        tensor.clear()
        assert tensor.read(HOST).tolist() == [0, 0]


def test_clearing_reaches_all_tensors_on_the_memory() -> None:
    first = Tensor((2,), np.float32)
    second = Tensor((1, 2), np.float32, first.memory)
    first.write(HOST)[...] = [1, 2]
    second.clear()
    assert first.read(HOST).tolist() == [0, 0]
