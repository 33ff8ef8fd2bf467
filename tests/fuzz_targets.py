"""What reads files from anywhere, each with good files to begin from; the tests and ``tools/fuzz.py`` damage those.

A target may raise Barista's own errors, and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_graphs
from caffe2_nets import little_pair
from google.protobuf import text_format
from google.protobuf.message import Message

from barista import blob, hdf5
from barista.data.database import open_database
from barista.data.datum import array_to_datum, datum_to_array, parse_datum
from barista.data.images import decode_image
from barista.data.mean import read_mean
from barista.frontends.caffe2 import fills, to_onnx
from barista.frontends.prototxt import parse_net, read_net, read_net_def, read_solver, to_text
from barista.gemm.conv_sizes import ConvSizes
from barista.gemm.shapes import Pass
from barista.gemm.tiles import TileSizes
from barista.hardware import bitstream, manifest
from barista.hardware.board import load_board
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.blobs import array_to_blob
from barista.proto.caffe_pb2 import TRAIN, NetParameter
from barista.schedule import Entry, Schedule
from barista.solvers.resume import Digest, Resume, read_resume, write_resume
from barista.solvers.snapshot import State, read_state, write_state
from barista.weights import read_weights, write_weights

GOLDEN = Path(__file__).parent / "golden"

NET = """name: "Fuzzed"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "y" type: "DummyData" top: "y" dummy_data_param { shape { dim: 2 } data_filler { value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 4 kernel_size: 3
  stride: 2 pad: 1 group: 1 dilation: 1 weight_filler { type: "xavier" } } param { lr_mult: 1 decay_mult: 0 } }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 } }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "pool" top: "bn" batch_norm_param { eps: 0.1 use_global_stats: false } }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { axis: 1 num_axes: 1 bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" relu_param { negative_slope: 0.1 } }
layer { name: "drop" type: "Dropout" bottom: "bn" top: "drop" dropout_param { dropout_ratio: 0.5 } }
layer { name: "slice" type: "Slice" bottom: "drop" top: "a" top: "b" slice_param { axis: 1 slice_point: 1 } }
layer { name: "cat" type: "Concat" bottom: "b" bottom: "a" top: "cat" concat_param { axis: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "cat" bottom: "drop" top: "sum" eltwise_param { operation: SUM coeff: 1
  coeff: -1 } }
layer { name: "flat" type: "Reshape" bottom: "sum" top: "flat" reshape_param { shape { dim: 0 dim: -1 } axis: 0 } }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip" inner_product_param { num_output: 5 axis: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" loss_weight: 1
  loss_param { ignore_label: 7 normalization: VALID } softmax_param { axis: 1 } }
layer { name: "top" type: "Accuracy" bottom: "ip" bottom: "y" top: "top" accuracy_param { top_k: 2 axis: 1 } }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "multistep" stepvalue: 10 stepvalue: 20 gamma: 0.1 max_iter: 30
momentum: 0.9 weight_decay: 1e-4 snapshot: 10 snapshot_prefix: "a/b" type: "Adam" test_iter: 1 test_interval: 5
train_state { stage: "x" level: 1 } snapshot_format: HDF5 solver_mode: CPU random_seed: 7
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One reader and good files for it."""

    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]


def _lenient_net(path: Path) -> None:
    to_text(read_net(path, ignore_unknown_fields=True))


def _record(path: Path) -> None:
    datum_to_array(parse_datum(path.read_bytes()))


def _image(path: Path) -> None:
    decode_image(path.read_bytes())


def _caffe2_init(path: Path) -> None:
    """Run the net that fills weights, and do without blobs of more than 16 MiB."""
    limit = fills.LARGEST_MODEL_BYTES
    fills.LARGEST_MODEL_BYTES = 2**24
    try:
        fills.Fills().net(read_net_def(path))
    finally:
        fills.LARGEST_MODEL_BYTES = limit


def _caffe2_predict(path: Path) -> None:
    """Convert the net that computes, with weights that fit a good one."""
    init, _, _ = little_pair()
    to_onnx(init, read_net_def(path), {"data": [1, 3, 6, 6]})


def _manifest(path: Path) -> None:
    manifest.from_json(path.read_text(encoding="utf-8", errors="replace"), "the manifest")


def _resealed(path: Path) -> None:
    """A resume file whose checksum was made to agree."""
    body = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode() + body)
    read_resume(str(path))


def make_net(path: Path) -> None:
    """Make the net of a file, run it, and do without blobs of more than a million elements."""
    net = read_net(path)
    limit = blob.MAX_COUNT
    blob.MAX_COUNT = 10**6
    try:
        made = Net(net, TRAIN, ops=CpuOps())
        made.forward_pass()
        made.backward_pass()
    finally:
        blob.MAX_COUNT = limit


def _weights() -> NetParameter:
    net = parse_net(NET)
    generator = np.random.default_rng(1)
    array_to_blob(generator.normal(size=(4, 3, 3, 3)).astype(np.float32), net.layer[2].blobs.add())
    array_to_blob(np.array([-1.0, 0.0, 2.0, 1.0]), net.layer[2].blobs.add())
    return net


def _files() -> dict[str, bytes]:
    """Small good files of the formats that have writers."""
    arrays = [np.array([[1, -2, 0]], np.float32), np.zeros(4)]
    one = Digest("a.caffemodel", 5, "ab" * 32)
    random = np.random.default_rng(1).bit_generator.state
    layers = {"data": {"type": "Data", "record": 7, "rng": random}, "lstm": {"type": "LSTM", "carried": ["CgQAAAAA"]}}
    plan = Schedule("LeNet", 64, (Entry("conv1", Pass.FORWARD, "fpga", "small"),
                                  Entry("conv1", Pass.GRAD_WEIGHT, "cpu")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(_weights(), folder / "caffemodel")
        write_weights(_weights(), folder / "caffemodel.h5")
        write_state(State(8, 1, "a.caffemodel", arrays), str(folder / "solverstate"))
        write_state(State(8, 1, "a.caffemodel.h5", arrays), str(folder / "solverstate.h5"))
        write_resume(Resume(8, 1, [0.5, 0.25], one, one, layers, [layers]), str(folder / "resume"))
        plan.save(folder / "schedule")
        built = bitstream.write(folder / "card", b"binary", TileSizes(8, 8, 16), "fp32", load_board("u250"),
                                kernel="gemm", clock_hz=150e6, tools={"vitis": "2022.1"}, suffix=".xclbin")
        (folder / "manifest").write_bytes(built.path.read_bytes())
        whole = bitstream.write(folder / "card", b"binary", ConvSizes(4, 3, 8, 32, 24, 8), "dfxp8", load_board("u250"))
        (folder / "conv_manifest").write_bytes(whole.path.read_bytes())
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _both_forms(message: Message) -> tuple[bytes, ...]:
    return message.SerializeToString(), text_format.MessageToString(message).encode()


def targets() -> dict[str, Target]:
    """All targets by name."""
    files = _files()
    caffe = {name: (GOLDEN / "solvers" / f"sgd_fixed_iter_8.{name}").read_bytes()
             for name in ("caffemodel", "solverstate", "caffemodel.h5", "solverstate.h5")}
    with open_database(GOLDEN / "data" / "png_encoded_lmdb") as database:
        encoded = next(database.items())[1]
    texts = (NET.encode(), *((GOLDEN / "data" / f"upgrade_{kind}.in.prototxt").read_bytes()
                             for kind in ("v0", "v1", "old_input", "input_shape")))
    image = array_to_datum(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), 3).SerializeToString()
    values = array_to_datum(np.linspace(-1, 1, 12).reshape(3, 2, 2), 3).SerializeToString()
    logging.getLogger("barista").setLevel(logging.ERROR)
    init, predict, _ = little_pair()
    return {
        "prototxt": Target(read_net, texts),
        "prototxt_lenient": Target(_lenient_net, texts),
        "solver": Target(read_solver, (SOLVER.encode(),)),
        "net": Target(make_net, (NET.encode(),)),
        "onnx": Target(onnx_graphs.read_limited, tuple(m.SerializeToString() for m in onnx_graphs.fuzz_models())),
        "caffe2_init": Target(_caffe2_init, _both_forms(init)),
        "caffe2_predict": Target(_caffe2_predict, _both_forms(predict)),
        "caffemodel": Target(read_weights, (files["caffemodel"], caffe["caffemodel"])),
        "caffemodel.h5": Target(hdf5.read_weights, (files["caffemodel.h5"], caffe["caffemodel.h5"])),
        "solverstate": Target(lambda path: read_state(str(path)), (files["solverstate"], caffe["solverstate"])),
        "solverstate.h5": Target(hdf5.read_state, (files["solverstate.h5"], caffe["solverstate.h5"])),
        "resume": Target(lambda path: read_resume(str(path)), (files["resume"],)),
        "resume_sealed": Target(_resealed, (files["resume"],)),
        "mean": Target(read_mean, ((GOLDEN / "data" / "mnist_mean.binaryproto").read_bytes(),)),
        "datum": Target(_record, (encoded, image, values)),
        "image": Target(_image, ((GOLDEN / "data" / "png" / "0.png").read_bytes(),)),
        "schedule": Target(Schedule.load, (files["schedule"], json.dumps({"net": "x", "entries": []}).encode())),
        "manifest": Target(_manifest, (files["manifest"], files["conv_manifest"])),
    }
