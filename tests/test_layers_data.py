"""The data layers in nets: Caffe's batches, shapes, states, arrays of the caller, and wrong definitions."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import barista
from barista.data.datum import array_to_datum
from barista.errors import BaristaError, DataError, NetError, ShapeError
from barista.frontends.prototxt import parse_net
from barista.net import Net
from barista.ops.base import OpSet

GOLDEN = Path(__file__).parent / "golden" / "data"


def net_of(text: str, ops: OpSet, phase: int = barista.TRAIN, **options: bool) -> Net:
    return Net(parse_net(text), phase, ops=ops, **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a list of five images and what windows and HDF5 files need."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).save(f"{number}.png")
    Path("list.txt").write_text("".join(f"{number}.png {number}\n" for number in range(5)))
    Path("windows.txt").write_text("# 0\n0.png\n3 8 9\n2\n3 0.8 1 1 6 5\n0 0.1 0 0 8 7\n")
    h5py = pytest.importorskip("h5py")
    with h5py.File("a.h5", "w") as file:
        file["x"] = rng.normal(size=(5, 3))
        file["y"] = np.arange(5)
    Path("h5.txt").write_text("a.h5\n")
    return tmp_path


READERS = {
    "Data": f'top: "a" top: "b" data_param {{ source: "{GOLDEN / "mnist_lmdb"}" backend: LMDB batch_size: 4 }} '
            'transform_param { crop_size: 5 mirror: true }',
    "ImageData": 'top: "a" top: "b" image_data_param { source: "list.txt" batch_size: 3 shuffle: true } '
                 'transform_param { crop_size: 5 mirror: true }',
    "WindowData": 'top: "a" top: "b" window_data_param { source: "windows.txt" batch_size: 4 } '
                  'transform_param { crop_size: 5 mirror: true }',
    "HDF5Data": 'top: "x" top: "y" hdf5_data_param { source: "h5.txt" batch_size: 3 shuffle: true }',
}


@pytest.mark.parametrize("case", ["hdf5", "image_data"])
def test_batches_are_those_of_caffe(case: str, ops: OpSet, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    monkeypatch.chdir(GOLDEN)
    net = Net(f"data_{case}.prototxt", barista.TEST, ops=ops)
    with np.load(f"data_{case}.npz") as golden:
        for k in range(4):
            net.forward()
            grey_levels = 1 if case == "image_data" else 0
            np.testing.assert_allclose(net.blobs["data"].data, golden[f"data:{k}"], rtol=0, atol=grey_levels)
            np.testing.assert_array_equal(net.blobs["label"].data, golden[f"label:{k}"])
    net.close()


@pytest.mark.parametrize("kind", READERS)
def test_a_restored_layer_goes_on_exactly(kind: str, folder: Path, cpu: OpSet) -> None:
    text = f'layer {{ name: "in" type: "{kind}" {READERS[kind]} }}'
    net, other = net_of(text, cpu), net_of(text, cpu)
    names = list(net.blobs)

    def batch(net: Net) -> list[list[float]]:
        net.forward()
        return [net.blobs[name].data.ravel().tolist() for name in names]

    for _ in range(3):
        batch(net)
    state = json.loads(json.dumps(net.layers[0].state()))
    expected = [batch(net) for _ in range(6)]
    batch(other)
    for again in (other, net):
        again.layers[0].restore(state)
        assert [batch(again) for _ in range(6)] == expected
    assert any(batch != expected[0] for batch in expected)
    net.close()
    other.close()


def test_images_of_all_sizes_pass_through_a_net(folder: Path, cpu: OpSet) -> None:
    for number, size in enumerate([(6, 4), (12, 10), (3, 5)]):
        Image.new("L", size, 10 * number).save(f"g{number}.png")
    Path("sizes.txt").write_text("g0.png 0\ng1.png 1\ng2.png 2\n")
    for planned in (False, True):
        net = net_of('layer { name: "in" type: "ImageData" top: "data" top: "label" '
                     'image_data_param { source: "sizes.txt" is_color: false } } '
                     'layer { name: "relu" type: "ReLU" bottom: "data" top: "r" } '
                     'layer { name: "p" type: "Pooling" bottom: "r" top: "p" pooling_param { global_pooling: true } } '
                     'layer { name: "both" type: "Eltwise" bottom: "data" bottom: "r" top: "sum" }', cpu,
                     plan_memory=planned)
        for turn in range(7):
            net.forward()
            height, width = [(4, 6), (10, 12), (5, 3)][turn % 3]
            assert net.blobs["sum"].shape == (1, 1, height, width) and net.blobs["p"].shape == (1, 1, 1, 1)
            assert (net.blobs["sum"].data == 20 * (turn % 3)).all() and net.blobs["p"].data == 10 * (turn % 3)
        net.close()


def test_hdf5_tops_are_the_datasets_of_their_names(folder: Path, cpu64: OpSet) -> None:
    import h5py

    net = net_of('layer { name: "in" type: "HDF5Data" top: "y" top: "x" hdf5_data_param { source: "h5.txt" '
                 'batch_size: 2 } }', cpu64)
    net.forward()
    with h5py.File("a.h5") as file:
        np.testing.assert_array_equal(net.blobs["x"].data, file["x"][:2])  # to the last bit of float64
    assert net.blobs["y"].data.tolist() == [0, 1] and net.blobs["y"].shape == (2,)
    net.close()


# ---- arrays of the caller ---------------------------------------------------------------------------------

MEMORY = ('layer { name: "mem" type: "MemoryData" top: "data" top: "label" memory_data_param { batch_size: 2 '
          'channels: 1 height: 2 width: 3 } TRANSFORM }')


def memory_net(ops: OpSet, transform: str = "") -> Net:
    return net_of(MEMORY.replace("TRANSFORM", transform), ops)


def test_memory_data_hands_out_batches_round_and_round(ops: OpSet) -> None:
    net = memory_net(ops)
    layer, data = net.layers[0], np.random.default_rng(1).normal(size=(6, 1, 2, 3)).astype(np.float32)
    assert net.blobs["data"].shape == (2, 1, 2, 3) and net.blobs["label"].shape == (2,)
    labels = np.arange(-1, 5).reshape(6, 1, 1, 1)
    layer.reset(data, labels)  # type: ignore[attr-defined]
    for turn in range(5):
        net.forward()
        rows = [2 * turn % 6, 2 * turn % 6 + 1]
        np.testing.assert_array_equal(net.blobs["data"].data, data[rows])
        # Caffe: a column of four axes from the first pass on.
        np.testing.assert_array_equal(net.blobs["label"].data, labels[rows])
    data[4:] = 7  # it is read where it lies
    net.forward()
    assert (net.blobs["data"].data == 7).all()
    layer.reset(-data[:2], [5, 6])  # type: ignore[attr-defined]
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, -data[:2])
    assert net.blobs["label"].data.ravel().tolist() == [5, 6]


def test_memory_data_goes_on_where_it_stood(cpu: OpSet) -> None:
    data = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3)
    net, other = memory_net(cpu), memory_net(cpu)
    net.layers[0].reset(data, range(4))  # type: ignore[attr-defined]
    net.forward()
    state = json.loads(json.dumps(net.layers[0].state()))
    other.layers[0].restore(state)  # without arrays: those that come are read from their start
    other.layers[0].reset(data, range(4))  # type: ignore[attr-defined]
    other.layers[0].restore(state)
    other.forward()
    assert other.blobs["label"].data.ravel().tolist() == [2, 3]
    other.layers[0].reset(data[:2], range(2))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="cannot go to row 2: its arrays have 2 rows, in batches of 2; give the arrays"):
        other.layers[0].restore(state)


def test_added_images_are_transformed(cpu: OpSet, caplog: pytest.LogCaptureFixture) -> None:
    net = memory_net(cpu, "transform_param { scale: 0.5 mean_value: 4 }")
    layer = net.layers[0]
    images = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3)
    layer.add_images(images, [1, 2, 3, 4])  # type: ignore[attr-defined]
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, (images[:2] - 4.0) / 2)
    with pytest.raises(DataError, match=r"mem \(MemoryData\): images were added before and are not all read"):
        layer.add_images(images, [1, 2, 3, 4])  # type: ignore[attr-defined]
    net.forward()
    layer.add_datums([array_to_datum(image, 9) for image in images[:2]])  # type: ignore[attr-defined]
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, (images[:2] - 4.0) / 2)
    assert net.blobs["label"].data.ravel().tolist() == [9, 9]
    layer.reset(images, range(4))  # type: ignore[attr-defined]
    assert "transform_param does nothing to arrays that are set" in caplog.text
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, images[:2])


@pytest.mark.parametrize("data, labels, message", [
    ((3, 1, 2, 3), (3,), "3 images are no multiple of batch_size=2"),
    ((0, 1, 2, 3), (0,), "0 images are no multiple"),
    ((2, 2, 2, 3), (2,), r"data has shape \(2, 2, 2, 3\); the definition asks for \(n, 1, 2, 3\)"),
    ((2, 6), (2,), r"data has shape \(2, 6\)"),
    ((2, 1, 2, 3), (3,), r"labels have shape \(3,\) for 2 images; give one number an image"),
    ((2, 1, 2, 3), (2, 2), r"labels have shape \(2, 2\)")])
def test_arrays_that_do_not_fit(cpu: OpSet, data: tuple, labels: tuple, message: str) -> None:
    layer = memory_net(cpu).layers[0]
    with pytest.raises(DataError, match=rf"mem \(MemoryData\): {message}"):
        layer.reset(np.zeros(data), np.zeros(labels))  # type: ignore[attr-defined]


def test_no_arrays_no_batch(cpu: OpSet) -> None:
    net = memory_net(cpu)
    with pytest.raises(DataError, match=r"mem \(MemoryData\): has no data yet; give some with net.set_input_arrays"):
        net.forward()
    with pytest.raises(DataError, match=r"mem \(MemoryData\): data and labels must be arrays of numbers"):
        net.layers[0].reset("x", [1])  # type: ignore[attr-defined]


# ---- output -----------------------------------------------------------------------------------------------

OUTPUT = ('layer { name: "x" type: "Input" top: "x" top: "l" input_param { shape { dim: 3 dim: 2 } shape { dim: 3 } } }'
          'layer { name: "out" type: "HDF5Output" bottom: "x" bottom: "l" hdf5_output_param { file_name: "out.h5" } }')


def test_output_holds_the_rows_of_every_pass(folder: Path, ops: OpSet, caplog: pytest.LogCaptureFixture) -> None:
    import h5py

    caplog.set_level(logging.INFO, "barista")
    net = net_of(OUTPUT, ops, barista.TEST)
    values = np.random.default_rng(1).normal(size=(2, 3, 2)).astype(np.float32)
    for turn in range(2):
        net.forward(x=values[turn], l=[turn, 0, -1])
    net.close()
    assert "Saving HDF5 file out.h5" in caplog.text and "Successfully saved 3 rows" in caplog.text
    with h5py.File("out.h5") as file:
        # Caffe: four axes always.
        np.testing.assert_array_equal(file["data"][()], values.reshape(6, 2, 1, 1))
        assert file["label"][()].tolist() == [[[[turn]]] for turn in (0, 0, -1, 1, 0, -1)]


def test_output_replaces_hdf5_files_alone(folder: Path, ops: OpSet) -> None:
    """Loading a definition must not cost any other file that it names."""
    for _ in range(2):
        net_of(OUTPUT, ops, barista.TEST).close()
    Path("out.h5").write_text("words")
    with pytest.raises(DataError, match=r"out \(HDF5Output\): HDF5 file 'out.h5' is not made in the place of a file"):
        net_of(OUTPUT, ops, barista.TEST)
    assert Path("out.h5").read_text() == "words"


def test_output_takes_part_in_a_backward_pass_with_zeros(folder: Path, cpu64: OpSet) -> None:
    net = net_of("force_backward: true " + OUTPUT, cpu64)
    net.forward(x=np.ones((3, 2)), l=np.ones(3))
    net.blobs["x"].diff[...] = 7
    net.backward()
    assert not net.blobs["x"].diff.any()
    net.close()


@pytest.mark.parametrize("old, new, kind, message", [
    ("dim: 3 dim: 2", "dim: 4 dim: 2", ShapeError,
     r"out \(HDF5Output\): bottoms of shapes \(4, 2\) and \(3,\) differ in their first axis"),
    ("dim: 3 dim: 2", "dim: 3 dim: 2 dim: 1 dim: 1 dim: 1", ShapeError, "it takes 1 to 4 axes"),
    ('file_name: "out.h5"', "", NetError, r"out \(HDF5Output\): has no hdf5_output_param.file_name"),
    ("out.h5", "none/out.h5", DataError, r"out \(HDF5Output\): HDF5 file 'none/out.h5' cannot be made"),
    ('bottom: "l"', "", NetError, "takes exactly 2 bottom")])
def test_output_refuses(folder: Path, cpu: OpSet, old: str, new: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        net_of(OUTPUT.replace(old, new), cpu)


# ---- wrong definitions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, text, message", [
    ("ImageData", 'top: "a" top: "b" image_data_param { batch_size: 2 }', "has no image_data_param.source; name what"),
    ("ImageData", 'top: "a" top: "b" image_data_param { source: "list.txt" batch_size: 0 }',
     "image_data_param.batch_size is 0; give 1 or more"),
    ("ImageData", 'top: "a" top: "b" image_data_param { source: "list.txt" new_height: 3 }',
     "new_height=3 and new_width=0; give both, or neither"),
    ("ImageData", 'top: "a" image_data_param { source: "list.txt" }', "takes exactly 2 top"),
    ("ImageData", 'top: "a" top: "b" image_data_param { source: "no.txt" }', r"'no\.txt' cannot be read: No such file"),
    ("ImageData", 'top: "a" top: "b" image_data_param { source: "list.txt" root_folder: "sub" }',
     r"list\.txt:1: image 'sub0\.png' cannot be read: .*root_folder 'sub' is put before the names of the list"),
    ("WindowData", 'top: "a" top: "b" window_data_param { source: "windows.txt" batch_size: 1 }', "crop_size must be"),
    ("WindowData", 'top: "a" top: "b" window_data_param { source: "windows.txt" }', "batch_size is 0"),
    ("HDF5Data", 'top: "x" hdf5_data_param { source: "h5.txt" batch_size: 1 } transform_param { scale: 2 }',
     "has a transform_param, and HDF5Data does not transform"),
    ("HDF5Data", 'top: "z" hdf5_data_param { source: "h5.txt" batch_size: 1 }', r"no dataset 'z'.*it has \['x', 'y'\]"),
    ("HDF5Data", 'top: "x" hdf5_data_param { source: "h5.txt" }', "hdf5_data_param.batch_size is 0"),
    ("MemoryData", 'top: "a" top: "b" memory_data_param { batch_size: 1 channels: 2 height: 3 }',
     "batch_size=1, channels=2, height=3 and width=0 of memory_data_param must all be 1 or more")])
def test_wrong_definitions_name_the_layer(folder: Path, cpu: OpSet, kind: str, text: str, message: str) -> None:
    with pytest.raises(BaristaError, match=rf"in \({kind}\): .*{message}"):
        net_of(f'layer {{ name: "in" type: "{kind}" {text} }}', cpu)
