"""Files from anywhere: sizes that are lies, links to elsewhere, compression bombs; all are refused before they cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barista import hdf5
from barista.errors import BaristaError, DataError, NetError, PrototxtError, ShapeError, SnapshotError
from barista.frontends import prototxt
from barista.frontends.prototxt import parse_net, read_binary_net
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto import wire
from barista.proto.blobs import array_to_blob, array_to_line, blob_to_array, line_to_array
from barista.proto.caffe_pb2 import BlobProto, NetParameter
from barista.proto.wire import overhead_bytes

h5py = pytest.importorskip("h5py")

MIB = 2**20


def peak_bytes(call: Callable[[], object], kind: type[BaristaError], message: str) -> int:
    """The most memory that a call takes which must fail."""
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=message):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blob", "message"), [
    (BlobProto(num=2**31 - 1, channels=2**31 - 1, height=2**31 - 1, width=2**31 - 1), "the message holds 0 values"),
    (BlobProto(shape={"dim": [2**62, 2**62]}, data=[1.0]), "the message holds 1 values"),
    (BlobProto(shape={"dim": [2, -3]}), "with sizes below 0"),
    (BlobProto(shape={"dim": [2**62] * 100_000}), "a shape of 100000 axes, the most are 32"),
    (BlobProto(shape={"dim": [0, 5]}, data=[1.0]), "needs 0 numbers; the message holds 1 values"),
])
def test_a_blob_that_states_another_size(blob: BlobProto, message: str) -> None:
    assert peak_bytes(lambda: blob_to_array(blob), DataError, message) < 4 * MIB


@pytest.mark.parametrize(("before", "raw", "after"), [
    (b"", b"\xa2\x06\x00", b""),
    (b"", b"\xa2\x06\x02\x3a\x00", b""),
    (b"\xc3\x3e\xa2\x06\x01\x07\xc4\x3e", b"\xa2\x06\x00", b""),  # a group that holds what looks like a broken layer
    (b"", b"\xa2\x06\x00", b"\x07"),  # a break behind what was parsed by then
])
def test_small_files_with_very_many_messages(tmp_path: Path, before: bytes, raw: bytes, after: bytes,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of two bytes each, which take hundreds in memory."""
    monkeypatch.setattr(wire, "SPARE_BYTES", MIB)
    (tmp_path / "bomb.caffemodel").write_bytes(before + raw * 10_000 + after)
    with pytest.raises(PrototxtError, match=r"would take more than \d+ MiB of memory beyond their size"):
        read_binary_net(tmp_path / "bomb.caffemodel")


def test_texts_with_very_many_messages(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"opens 100001 messages with '{' or '<'; the limit is 100000"):
        parse_net("layer{}" * 100_001)


def test_overhead_grows_with_the_messages() -> None:
    net = NetParameter(name="n")
    sizes = []
    for number in range(3):
        array_to_blob(np.ones((50, 50), np.float32), net.layer.add(name=str(number)).blobs.add())
        sizes.append(overhead_bytes(net.SerializeToString(), NetParameter.DESCRIPTOR, 10**9))
    assert 0 < sizes[1] - sizes[0] == sizes[2] - sizes[1] < 1000
    assert overhead_bytes(net.SerializeToString()[:-7], NetParameter.DESCRIPTOR, 10**9) <= sizes[-1]
    assert overhead_bytes(b"\x2a\x05\x01\x01\x01\x01\x01" * 3, NetParameter.DESCRIPTOR, 10**9) > 0


def test_large_texts_are_told_wrong_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pointing at a mistake takes memory of many times the text."""
    text = 'name: "x" ' + "force_backward: true debug_info: false " * 3 + "nonsense: 5"
    monkeypatch.setattr(prototxt, "EXPLAINED_FIELDS", 5)
    with pytest.raises(PrototxtError, match="should not have multiple"):
        parse_net(text)
    with pytest.raises(PrototxtError, match="unknown fields can be ignored in texts of up to 2 MiB and 5 fields"):
        parse_net(text, ignore_unknown_fields=True)


@pytest.mark.parametrize("line", ["", "AAA", "\u00e9", None, 7, "CA==", "KgUBAQ=="])
def test_what_is_no_array_in_text(line: object) -> None:
    array = np.array([[1, -2, 0]], np.float32)
    np.testing.assert_array_equal(line_to_array(array_to_line(array)), array)
    if line != "":
        with pytest.raises(DataError):
            line_to_array(line)


@pytest.mark.parametrize(("layer", "who"), [
    ('type: "Input" top: "y" input_param { shape { dim: 1000000 dim: 1000000 } }', "big \\(Input\\)"),
    ('type: "DummyData" top: "y" dummy_data_param { shape { dim: 1000000 dim: 1000000 } }', "big \\(DummyData\\)"),
    ('type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2000000000 }',
     "big \\(InnerProduct\\)"),
    ('type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 1000 kernel_size: 1 pad: 1000000 }',
     "big \\(Convolution\\)"),
])
def test_a_net_that_asks_for_absurd_blobs(layer: str, who: str) -> None:
    """10^12 numbers are 4 TB: refused by name, before any of them is there."""
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 500 dim: 2 dim: 2 } } } '
    net = parse_net(text + f'layer {{ name: "big" {layer} }}')
    assert peak_bytes(lambda: Net(net, ops=CpuOps()), ShapeError, who) < 16 * MIB


@pytest.mark.parametrize(("layer", "kind", "message"), [
    ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 }', ShapeError, "with a size of 0"),
    ('type: "Im2col" convolution_param { kernel_size: 1 }', ShapeError, "with a size of 0"),
    ('type: "Softmax"', ShapeError, "the bottom has 0 classes; a softmax needs 1 or more"),
])
def test_sizes_of_0(layer: str, kind: type[BaristaError], message: str) -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 0 dim: 3 dim: 3 } } } '
    with pytest.raises(kind, match=message):
        Net(parse_net(text + f'layer {{ name: "y" bottom: "x" top: "y" {layer} }}'), ops=CpuOps())


@pytest.mark.parametrize(("filler", "message"), [
    ('type: "uniform" min: 1 max: -1', "needs finite min <= max, got min 1 and max -1"),
    ('type: "uniform" min: nan', "needs finite min <= max, got min nan"),
    ('type: "gaussian" std: -2', "the gaussian filler needs std of 0 or more, got -2"),
])
def test_fillers_of_absurd_numbers(filler: str, message: str) -> None:
    text = ('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } layer { name: "ip" '
            'type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 '
            f'weight_filler {{ {filler} }} }} }}')
    with pytest.raises(NetError, match=f"ip.*{message}"):
        Net(parse_net(text), ops=CpuOps())


# ---- HDF5 -------------------------------------------------------------------------------------------------


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    """A caffemodel in HDF5 with a layer 'ip' of two parameters."""
    path = tmp_path / "w.caffemodel.h5"
    net = NetParameter()
    layer = net.layer.add(name="group/ip")
    array_to_blob(np.array([[1, -2], [0, 4]], np.float32), layer.blobs.add())
    array_to_blob(np.array([0.5, -0.5]), layer.blobs.add())
    hdf5.write_weights(net, path)
    return path


def external(file: Any) -> None:
    file["data/ip/0"] = h5py.ExternalLink("other.h5", "/data/ip/0")


def soft(file: Any) -> None:
    file["data/ip/0"] = h5py.SoftLink("/data/group/ip/0")


def linked_group(file: Any) -> None:
    file["data/ip"] = h5py.ExternalLink("other.h5", "/data/ip")


def linked_root(file: Any) -> None:
    del file["data"]
    file["data"] = h5py.SoftLink("/elsewhere")


def storage_elsewhere(file: Any) -> None:
    file.create_dataset("data/ip/0", (4,), "f4", external=[("secret.bin", 0, 16)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("data/ip/0", layout)


def bomb(file: Any) -> None:
    file.create_dataset("data/ip/0", (30 * MIB,), "f4", chunks=(MIB,), compression="gzip", fillvalue=1)


def never_written(file: Any) -> None:
    file.create_dataset("data/ip/0", (10**12,), "f4", chunks=(MIB,))


def large_chunk(file: Any) -> None:
    file.create_dataset("data/ip/0", (1,), "f4", maxshape=(None,), chunks=(30 * MIB,), compression="gzip")


def text(file: Any) -> None:
    file["data/ip/0"] = "words"


def wide(file: Any) -> None:
    file["data/ip/0"] = np.zeros(3, np.complex128)


def number(file: Any) -> None:
    file["data/ip/999999"] = np.zeros(3, np.float32)


def name(file: Any) -> None:
    file["data/ip/weights"] = np.zeros(3, np.float32)


def deep(file: Any) -> None:
    file["data/" + "a/" * 40 + "0"] = np.zeros(3, np.float32)


def cycle(file: Any) -> None:
    file["data/ip/again"] = file["data"]


def many_ways(file: Any) -> None:
    group = file["data"].create_group("g")
    for _ in range(28):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


@pytest.mark.parametrize(("damage", "message"), [
    (external, "data/ip/0 is a link to another place, which is not followed"),
    (soft, "data/ip/0 is a link to another place"),
    (linked_group, "data/ip is a link to another place"),
    (linked_root, "data is a link to another place"),
    (storage_elsewhere, "data/ip/0 has its numbers in another file, which is not opened"),
    (virtual, "data/ip/0 has its numbers in another file"),
    (bomb, r"its datasets state more than twice the \d+ bytes of the file: .* h5repack"),
    (never_written, "its datasets state more than twice"),
    (large_chunk, "its datasets state more than twice"),
    (text, "data/ip/0 holds object, not numbers"),
    (wide, "data/ip/0 holds complex128, not numbers"),
    (number, r"data/ip holds \['999999'\]; a caffemodel has data/<layer>/<number>"),
    (name, r"data/ip holds \['weights'\]"),
    (deep, "groups lie more than 32 deep in each other"),
    (cycle, "groups lie more than 32 deep in each other"),
    (many_ways, "state more than twice"),
])
def test_hdf5_from_anywhere(model: Path, damage: Callable[[Any], None], message: str) -> None:
    (model.parent / "secret.bin").write_bytes(b"0123456789abcdef")
    with h5py.File(model.parent / "other.h5", "w") as file:
        file["data/ip/0"] = np.zeros(4, np.float32)
    before = [layer.name for layer in hdf5.read_weights(model).layer]
    assert "group/ip" in before
    with h5py.File(model, "a") as file:
        file.require_group("data/ip") if damage not in (linked_group, linked_root) else None
        damage(file)
    assert peak_bytes(lambda: hdf5.read_weights(model), SnapshotError, message) < 32 * MIB


def test_hdf5_that_is_compressed_is_read(model: Path) -> None:
    with h5py.File(model, "a") as file:
        file.create_dataset("data/ip/0", data=np.eye(300, dtype=np.float32), compression="gzip")
    [layer] = [layer for layer in hdf5.read_weights(model).layer if layer.name == "ip"]
    np.testing.assert_array_equal(blob_to_array(layer.blobs[0]), np.eye(300))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("history", np.zeros(3), "history is no group"),
    ("iter", np.zeros(0, np.int32), "iter holds no whole number"),
    ("iter", np.zeros(1), "iter holds no whole number"),
    ("learned_net", np.zeros(3), "learned_net holds float64, not one string"),
    ("history", None, "history is a link"),
    ("iter", None, "iter is a link"),
])
def test_hdf5_states_from_anywhere(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tmp_path / "s.solverstate.h5"
    hdf5.write_state(path, 5, 0, "w.caffemodel.h5", [np.array([1.0, -2.0, 0.0])])
    iteration, _, learned_net, [history] = hdf5.read_state(path)
    assert (iteration, learned_net.rstrip("\0"), history.tolist()) == (5, "w.caffemodel.h5", [1, -2, 0])
    with h5py.File(path, "a") as file:
        del file[key]
        file[key] = value if value is not None else h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(SnapshotError, match=message):
        hdf5.read_state(path)
