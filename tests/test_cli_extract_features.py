"""extract_features: databases and arrays of what a net computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from barista.cli import compute
from barista.cli.main import main
from barista.data import array_to_datum, create_database, datum_to_array, open_database
from barista.data.datum import parse_datum
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TEST

NET = """
name: "features"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "images" batch_size: 3 backend: LMDB } }
layer { name: "conv/a" type: "Convolution" bottom: "data" top: "conv/a"
  convolution_param { num_output: 2 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv/a" top: "conv/a" }
layer { name: "ip" type: "InnerProduct" bottom: "conv/a" top: "file"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "file" bottom: "label" top: "loss" }
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A folder, made the current one, with a net of some weights; returns its blobs over 3 batches of 7 images."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (7, 1, 4, 3)).astype(np.uint8)
    with create_database("images") as database:
        for number, image in enumerate(images):
            database.put(f"{number}", array_to_datum(image, number % 5).SerializeToString())
    Path("net.prototxt").write_text(NET)
    net = Net("net.prototxt", TEST)
    net.save("net.caffemodel")
    batches = []
    for _ in range(3):
        net.forward()
        batches.append({name: net.blobs[name].data.copy() for name in ("conv/a", "file", "label")})
    net.close()
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def records(path: str) -> list[tuple[bytes, np.ndarray]]:
    with open_database(path) as database:
        return [(bytes(key), datum_to_array(parse_datum(value)).copy()) for key, value in database.items()]


def test_databases_hold_an_image_a_record(trained: dict[str, np.ndarray]) -> None:
    assert main(["extract_features", "net.caffemodel", "net.prototxt", "conv/a,file,label", "a,b,c", "3", "lmdb"]) == 0
    for path, name, shape in (("a", "conv/a", (2, 3, 2)), ("b", "file", (5, 1, 1)), ("c", "label", (1, 1, 1))):
        found = records(path)
        assert [key for key, _ in found] == [b"%010d" % number for number in range(9)]
        for (_, image), expected in zip(found, trained[name], strict=True):
            assert image.shape == shape and image.dtype == np.float32
            np.testing.assert_array_equal(image, expected.reshape(shape))


def test_arrays_hold_an_image_a_row(trained: dict[str, np.ndarray]) -> None:
    """Also of a blob whose name numpy.savez takes for its own argument."""
    assert main(["extract_features", "net.caffemodel", "net.prototxt", "file,conv/a", "a.npz,b.npz", "2", "npz",
                 "CPU"]) == 0
    for path, name in (("a.npz", "file"), ("b.npz", "conv/a")):
        with np.load(path) as arrays:
            np.testing.assert_array_equal(arrays[name], trained[name][:6])


def test_gpu_means_opencl(trained: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch,
                          capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def make_ops(backend: str, *rest: object, **options: object) -> CpuOps:
        asked.append(backend)
        return CpuOps()

    monkeypatch.setattr(compute, "make_ops", make_ops)
    assert main(["extract_features", "net.caffemodel", "net.prototxt", "file", "a.npz", "1", "npz", "GPU", "2"]) == 0
    log = capsys.readouterr().err
    assert "Backend opencl, chosen by --gpu" in log and "--gpu 2: the numbers are CUDA's and are not followed" in log
    assert asked == ["opencl"]
    with np.load("a.npz") as arrays:
        np.testing.assert_array_equal(arrays["file"], trained["file"][:3])


def test_what_extract_features_refuses(trained: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    def fails(blobs: str, places: str, kind: str = "lmdb", status: int = 1) -> str:
        assert main(["extract_features", "net.caffemodel", "net.prototxt", blobs, places, "1", kind]) == status
        assert not Path("a").exists()
        return capsys.readouterr().err

    assert "net 'features' has no blob 'fil' in the phase TEST; did you mean 'file'?" in fails("fil", "a")
    assert "blob 'loss' is a single number and has no axis of images" in fails("loss", "a")
    assert "2 blob(s) (file,label) and 1 place(s) to keep them (a)" in fails("file,label", "a", status=2)
    assert "one place is given twice" in fails("file,label", "a,a", status=2)
    assert "database 'images' exists already" in fails("file,label", "a,images")
    assert "unknown backend 'lmbd'" in fails("file", "a", "lmbd")
    assert "there is no folder none" in fails("file", "none/a.npz", "npz")
