"""barista summary: the table of layers and what a batch needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from little_nets import inputs, layer, make
from opencl_device import open_opencl

from barista.cli.arguments import Parser
from barista.cli.main import main
from barista.cli.memory import memory_of
from barista.cli.operations import operations
from barista.cli.planning import add_planning, open_planning_net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TEST
from barista.resources import find

LENET = str(find("prototxt", "lenet", "train_val.prototxt"))
SOLVER = str(find("prototxt", "lenet", "solver.prototxt"))
SHAPE = ("--input-shape", "1,28,28", "--batch", "64")


def summary(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["summary", *words]) == 0
    return capsys.readouterr().out.splitlines()


def workspace(backend: str, text: str) -> tuple[float, float]:
    """MiB that layers hold, and that they share, as a summary says."""
    found = re.search(rf"^workspace on {backend} +([\d.]+) MiB that layers hold, "
                      r"and ([\d.]+) MiB that they use in turn$", text, re.MULTILINE)
    assert found, text
    return float(found[1]), float(found[2])


def test_the_table_of_lenet(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(capsys, "--model", LENET, *SHAPE)
    rows = {line.split()[0]: line for line in lines if line}
    assert rows["layer"].split() == ["layer", "type", "output", "parameters", "MMAC", "step", "MMAC", "MiB",
                                     "workspace", "MiB"]
    cells = {name: re.split(r"  +", line) for name, line in rows.items()}
    assert cells["data"][:3] == ["data", "Data", "64 x 1 x 28 x 28 (and 1 more)"]
    assert cells["conv1"][:-1] == ["conv1", "Convolution", "64 x 20 x 24 x 24", "520", "18.43", "36.86", "2.8"]
    assert float(cells["conv1"][-1]) > 0.1  # the columns of each thread
    assert cells["pool1"] == ["pool1", "Pooling", "64 x 20 x 12 x 12", "0.7", "0.2"]
    assert cells["ip1"] == ["ip1", "InnerProduct", "64 x 500", "400,500", "25.60", "76.80", "0.1"]
    assert cells["relu1"] == ["relu1", "ReLU", "64 x 500"]  # in place
    assert len(rows["conv1"]) == len(rows["layer"])  # aligned
    assert "parameters               431,080 (1.6 MiB)" in lines
    assert "forward pass             146.75 MMAC" in lines
    assert "step of training         421.82 MMAC, forward and backward" in lines
    assert any(line.startswith("a batch of 64 needs ") for line in lines)


def test_a_deploy_net_is_counted_as_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "A deploy net (inputs and no loss): counted in the phase TEST; --phase TRAIN counts gradients too."
    path = tmp_path / "deploy.prototxt"
    path.write_text(inputs(x=(2, 3)) + layer("InnerProduct", "x", "a", "inner_product_param { num_output: 5 }", "a"))
    lines = summary(capsys, "--model", str(path))
    assert lines[0] == said and not any("step" in line or "gradients of" in line for line in lines[1:])
    lines = summary(capsys, "--model", str(path), "--phase", "TRAIN")
    assert said not in lines and any(line.startswith("step of training") for line in lines)
    path.write_text(path.read_text() + layer("EuclideanLoss", "a a", "loss", name="loss"))
    assert said not in summary(capsys, "--model", str(path))


def test_operations_of_what_has_no_gradient_and_of_deconvolutions() -> None:
    net = make(inputs(x=(2, 3, 5, 5), t=(2, 4, 9, 9))
               + layer("Convolution", "x", "c", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 } "
                                                "param { lr_mult: 0 }", "c")
               + layer("Deconvolution", "c", "d", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 }",
                       "d")
               + layer("EuclideanLoss", "d t", "loss", name="loss"), CpuOps(), head="")
    counts = {item.name: operations(net, index) for index, item in enumerate(net.layers)}
    conv, deconv = 2 * 4 * 25 * 3 * 9, 2 * 4 * 25 * 4 * 9
    assert counts["c"] == (conv, conv)  # the weights are not learnt, and the input needs no gradient
    # The bias of the convolution is learnt, so that the deconvolution has all three passes.
    assert counts["d"] == (deconv, 3 * deconv)
    assert counts["loss"] == (0, 0)


@pytest.mark.parametrize(("kind", "parts"), [("LSTM", 4), ("RNN", 1)])
def test_operations_of_recurrent_layers(kind: str, parts: int) -> None:
    """Weights of the input, of the static input (once for all steps) and of the state, RNN's of its output too."""
    steps, streams, size, static, hidden = 3, 2, 5, 4, 6
    net = make(inputs(x=(steps, streams, size), cont=(steps, streams), s=(streams, static))
               + layer(kind, "x cont s", "h", f"recurrent_param {{ num_output: {hidden} }}", "h")
               + layer("Reduction", "h", "loss", "loss_weight: 1", name="loss"), CpuOps(), head="")
    [counts] = [operations(net, index) for index, item in enumerate(net.layers) if item.type == kind]
    own = steps * streams * parts * hidden * hidden + (0 if kind == "LSTM" else steps * streams * hidden * hidden)
    outer = steps * streams * parts * hidden * size + streams * parts * hidden * static
    assert counts == (own + outer, 3 * own + 2 * outer)


@pytest.mark.parametrize(("head", "shape", "message"), [
    ("type: 'Data' transform_param { mean_value: 1 mean_value: 2 mean_value: 3 }", "1,4,4",
     "d (Data): --input-shape 1,4,4 has 1 channel(s), but transform_param has 3 mean_value, so images have 3; give "
     "3,4,4"),
    ("type: 'Data' transform_param { crop_size: 5 }", "1,4,4",
     "d (Data): --input-shape 1,4,4 is 4 x 4 pixels, but transform_param.crop_size is 5, and the shape is that after "
     "the crop; give 1,5,5"),
    ("type: 'Data' transform_param { force_gray: true }", "3,4,4", "transform_param.force_gray is true"),
    ("type: 'ImageData'", "1,4,4", "image_data_param.is_color is true, so images have 3"),
    ("type: 'MemoryData' memory_data_param { channels: 2 }", "1,4,4", "memory_data_param.channels is 2"),
    ("type: 'Input' input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } }", "1,4,4", "input_param.shape has 3"),
])
@pytest.mark.parametrize("command", ["summary", "time"])
def test_a_shape_that_a_layer_contradicts(tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, shape: str,
                                          message: str, command: str) -> None:
    (tmp_path / "net").write_text(f"layer {{ name: 'd' top: 'x' {head} }}")
    assert main([command, "--model", str(tmp_path / "net"), "--input-shape", shape]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Data", "ImageData", "HDF5Data", "WindowData", "MemoryData"])
def test_layers_that_read_images_are_shown_as_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                            kind: str) -> None:
    (tmp_path / "net").write_text(f"layer {{ name: 'd' type: '{kind}' top: 'x' top: 'y' }}"
                                  + layer("InnerProduct", "x", "a", "inner_product_param { num_output: 2 }", "a"))
    lines = summary(capsys, "--model", str(tmp_path / "net"), "--input-shape", "3,4,5", "--batch", "7")
    [row] = [line for line in lines if line.startswith("d ")]
    assert re.split(r"  +", row)[:3] == ["d", kind, "7 x 3 x 4 x 5 (and 1 more)"]


@pytest.mark.parametrize("command", ["time", "summary"])
@pytest.mark.parametrize("missing", ["mean_file", "source"])
def test_missing_data_can_be_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Path,
                                          command: str, missing: str) -> None:
    source = golden / "data" / "mnist_lmdb" if missing == "mean_file" else "no_lmdb"
    mean = "transform_param { mean_file: 'no_mean' }" if missing == "mean_file" else ""
    data = f"data_param {{ source: '{source}' backend: LMDB batch_size: 2 }}"
    (tmp_path / "net").write_text(layer("Data", "", "x", f"{data} {mean}", "data"))
    assert main([command, "--model", str(tmp_path / "net")]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"'no_{'mean' if missing == 'mean_file' else 'lmdb'}'" in err and "--input-shape C," in err
    assert main([command, "--model", str(tmp_path / "net"), "--input-shape", "1,8,8"]) == 0


def test_time_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", LENET, "--iterations", "1", "--input-shape", "1,28,28", "--batch", "2"]) == 0
    log = capsys.readouterr().err
    found = re.search(r"Initial loss: (\S+)", log)
    assert found is not None and float(found[1]) > 0
    assert re.search(r"conv1\tforward: \S+ ms\.", log)


def test_history_gradients_and_phase(capsys: pytest.CaptureFixture[str]) -> None:
    train = "\n".join(summary(capsys, "--model", LENET, *SHAPE, "--solver", SOLVER, "--backend", "cpu"))
    assert "gradients of parameters  1.6 MiB" in train and "history of the solver    1.6 MiB" in train
    test = "\n".join(summary(capsys, "--model", LENET, *SHAPE, "--phase", "TEST"))
    assert "gradients" not in test and "history" not in test


def test_the_sum_is_that_of_its_parts() -> None:
    net = make(inputs(x=(2, 3), t=(2,)) + layer("InnerProduct", "x", "a", "inner_product_param { num_output: 5 }", "a")
               + layer("ReLU", "a", "a", name="relu")
               + layer("InnerProduct", "a", "f", "inner_product_param { num_output: 4 }", "f")
               + layer("SoftmaxWithLoss", "f t", "loss", name="loss"), CpuOps(), head="")
    memory = memory_of(net, moments=2)
    assert memory.parameters == 4 * (3 * 5 + 5 + 5 * 4 + 4) == memory.parameter_gradients
    assert memory.history == 2 * memory.parameters
    assert memory.values == 4 * (6 + 2 + 10 + 8 + 1)
    assert memory.gradients == 4 * (10 + 8)
    assert memory.held == 4 * 2 * 4 and memory.shared == 0  # the probabilities
    assert memory.total == sum((memory.parameters, memory.parameter_gradients, memory.history, memory.values,
                                memory.gradients, memory.held)) - memory.saved
    assert memory.saved == 4 * net.memory_plan().saved_count
    net = make(inputs(x=(2, 3)) + layer("TanH", "x", "y", name="y"), CpuOps(), TEST, head="")
    assert str(memory_of(net)) == "0.0 MiB: parameters 0.0, blobs 0.0, workspace 0.0"


def test_training_says_what_a_batch_needs(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    source = min(path for path in digits.iterdir())
    definition = (f"layer {{ name: 'data' type: 'Data' top: 'x' top: 't' data_param {{ source: '{source}' "
                  "batch_size: 4 backend: LMDB } }"
                  + layer("InnerProduct", "x", "f", "inner_product_param { num_output: 10 }", "f")
                  + layer("SoftmaxWithLoss", "f t", "loss", name="loss"))
    (tmp_path / "net.prototxt").write_text(definition)
    (tmp_path / "solver.prototxt").write_text("net: 'net.prototxt' base_lr: 0.01 lr_policy: 'fixed' max_iter: 1 "
                                              "snapshot_after_train: false solver_mode: CPU")
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    assert "A batch needs 0.1 MiB: parameters 0.0, their gradients 0.0, the solver's history 0.0, blobs 0.0, " \
        "workspace 0.0\n" in capsys.readouterr().err


def test_the_backend_is_chosen_as_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f"net: '{LENET}' base_lr: 0.01 lr_policy: 'fixed' solver_mode: CPU")
    for words in ((), ("--solver", str(solver))):
        out = "\n".join(summary(capsys, "--model", LENET, *SHAPE, *words))
        held, shared = workspace("cpu", out)
        assert held > 0.1 and shared == 0
    assert "chosen by solver_mode: CPU" in caplog.text


@pytest.mark.opencl
def test_the_workspace_of_a_device_is_told_without_measuring(monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    from barista.ops.opencl.measure import Bench

    def refuse(*_: object) -> None:
        raise AssertionError("a summary measures nothing")

    monkeypatch.setattr(Bench, "seconds", refuse)
    train, test = ("\n".join(summary(capsys, "--model", LENET, *SHAPE, "--backend", "opencl", "--phase", phase))
                   for phase in ("TRAIN", "TEST"))
    assert workspace("opencl", train) > workspace("opencl", test) > (0, 0)


def test_no_blob_takes_memory_for_a_summary() -> None:
    parser = Parser("barista summary", "", "")
    add_planning(parser)
    net = open_planning_net(parser.read(["--model", LENET, *SHAPE]))
    memory_of(net)
    assert not any(tensor.memory._copies for name, blob in net.blobs.items() if name != "loss"
                   for tensor in (blob.value, blob.grad))
