"""Python layers: what their users write, on every backend, in solvers, and who may run them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_nets import inputs, layer, make
from opencl_device import open_opencl

import barista as caffe
from barista.blob import Blob
from barista.cli.main import main
from barista.compose import make_ops
from barista.errors import NetError, ShapeError, UnsupportedError
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.python_layer import culprit, python_layers, python_layers_allowed
from barista.solvers import Solver

Blobs = Sequence[Blob]

IP = "inner_product_param { num_output: 2 weight_filler { type: 'gaussian' std: 1 } }"


def python(kind: str, bottom: str = "x", top: str = "y", text: str = "", more: str = "", name: str = "mine",
           module: str = __name__) -> str:
    """Prototxt of a layer whose class is in this file."""
    return layer("Python", bottom, top, f"python_param {{ module: '{module}' layer: '{kind}' param_str: '{text}' "
                 f"share_in_parallel: true }} {more}", name)


class Scaled(caffe.Layer):
    """y = w x, with w a parameter that begins at param_str."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = float(self.param_str)
        self.reshapes = 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.reshapes += 1
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.blobs[0].diff[0] += np.vdot(top[0].diff, bottom[0].data)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


class HalfSquares(caffe.Layer):
    """The loss 1/2 sum (a - b)^2 / N, times whatever its weight is."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) != 2:
            raise ValueError("takes two bottoms")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].count != bottom[1].count:
            raise ValueError("both bottoms must have one size")
        top[0].reshape(1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.difference = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * top[0].diff[0] * self.difference / bottom[0].num


class Counter(caffe.Layer):
    """Data: 0, 1, 2 ..., one item more in each batch; the shape is set when the batch is made."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.next = 0
        self.size = 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(self.size, 2)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[:, 0] = np.arange(self.next, self.next + self.size)
        top[0].data[:, 1] = self.phase
        self.next += self.size
        self.size += 1

    def start_at(self, number: int) -> None:
        self.next = number


class Raising(caffe.Layer):
    """Fails where param_str says."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.fail("setup")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape)
        self.fail("reshape")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.fail("forward")

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.fail("backward")

    def fail(self, where: str) -> None:
        if self.param_str == where:
            raise RuntimeError("this is the user's")


class TooLarge(caffe.Layer):
    """Asks for an impossible shape."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(-1, 2)


class OnlyForward(caffe.Layer):
    """No setup and no backward."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = bottom[0].data


class NoLayer:
    """Derives from nothing."""


@pytest.fixture(scope="module", params=["cpu", "cpu64", pytest.param("opencl", marks=pytest.mark.opencl),
                                        pytest.param("apart", marks=pytest.mark.opencl)])
def ops(request: pytest.FixtureRequest) -> OpSet:
    """Backends; the last with a memory of its own."""
    if request.param.startswith("cpu"):
        return make_ops("cpu", np.float64 if request.param == "cpu64" else np.float32)
    made = open_opencl()
    if request.param == "apart":
        made.space.shares_host = False
    return made


# ---- computing --------------------------------------------------------------------------------------------


def test_between_other_layers(ops: OpSet) -> None:
    net = make(inputs(x=(3, 4)) + layer("InnerProduct", "x", "a", IP, "below") + python("Scaled", "a", "b", "-1.5")
               + layer("InnerProduct", "b", "y", IP, "above"), ops)
    gen = np.random.default_rng(0)
    x, dy = gen.normal(size=(3, 4)), gen.normal(size=(3, 2))
    lower, upper = (net.params[name][0].data.copy() for name in ("below", "above"))
    for scale in (-1.5, 2.0):
        net.params["mine"][0].data[...] = scale
        net.clear_param_diffs()
        np.testing.assert_allclose(net.forward(x=x)["y"], scale * x @ lower.T @ upper.T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(net.backward(y=dy)["x"], scale * dy @ upper @ lower, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(net.params["mine"][0].diff, [np.vdot(dy @ upper, x @ lower.T)], rtol=1e-4)
        assert net.params["mine"][0].dtype == ops.dtype


@pytest.mark.parametrize("weight", [1, -2.5])
def test_as_a_loss_with_a_weight(weight: float, ops: OpSet) -> None:
    net = make(inputs(x=(3, 4), t=(3, 2)) + layer("InnerProduct", "x", "a", IP, "ip")
               + python("HalfSquares", "a t", "loss", more=f"loss_weight: {weight}"), ops)
    gen = np.random.default_rng(0)
    x, t = gen.normal(size=(3, 4)), gen.normal(size=(3, 2))
    net.forward(x=x, t=t)
    difference = x @ net.params["ip"][0].data.T - t
    assert net.loss() == pytest.approx(weight * (difference**2).sum() / 6, rel=1e-4)
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, weight * difference.T @ x / 3, rtol=1e-4, atol=1e-5)
    assert net.blob_loss_weights["loss"] == weight


def test_as_data_of_changing_shape(ops: OpSet) -> None:
    net = make(python("Counter", "", "x") + layer("ReLU"), ops, caffe.TEST)
    shapes = [net.forward()["y"].shape for _ in range(3)]
    assert shapes == [(1, 2), (2, 2), (3, 2)]
    np.testing.assert_array_equal(net.blobs["y"].data, [[3, 1], [4, 1], [5, 1]])
    # What scripts do with a data layer of theirs: its methods and attributes are reached through net.layers.
    net.layers[0].start_at(10)  # type: ignore[attr-defined]
    net.layers[0].size = 2  # type: ignore[attr-defined]
    np.testing.assert_array_equal(net.forward()["y"][:, 0], [10, 11])
    assert net.layers[0].next == 12  # type: ignore[attr-defined]
    assert isinstance(net.layers[0].layer, Counter)  # type: ignore[attr-defined]
    assert net.layers[0].type == "Python"


def test_reshape_comes_before_each_forward_pass(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 2)) + python("Scaled", text="1"), cpu)
    mine: Any = net.layers[1]
    assert mine.reshapes == 1
    net.forward()
    net.blobs["x"].reshape(5, 1, 3)
    assert net.forward()["y"].shape == (5, 1, 3)
    assert mine.reshapes == 3


SOLVER = """net: '{net}' base_lr: 0.1 momentum: 0.5 lr_policy: 'fixed' max_iter: 12 snapshot_after_train: false
    test_iter: 2 test_interval: 6 random_seed: 3"""


@pytest.mark.parametrize("plan_memory", [False, True])
def test_a_solver_trains_it(plan_memory: bool, tmp_path: Path, ops: OpSet) -> None:
    filler = "data_filler { type: 'gaussian' }"
    (tmp_path / "net.prototxt").write_text(
        layer("DummyData", "", "x", f"dummy_data_param {{ shape {{ dim: 6 dim: 4 }} {filler} }}", "data")
        + layer("InnerProduct", "x", "a", IP, "ip") + layer("InnerProduct", "x", "t", IP + "param { lr_mult: 0 }"
                                                            "param { lr_mult: 0 }", "target")
        + python("Scaled", "a", "b", "0.5") + python("HalfSquares", "b t", "loss", more="loss_weight: 1", name="loss"))
    (tmp_path / "solver.prototxt").write_text(SOLVER.format(net=tmp_path / "net.prototxt"))
    with Solver(tmp_path / "solver.prototxt", ops=ops, plan_memory=plan_memory) as solver:
        first = solver.test_all()[0]["loss"][0]
        scale = float(solver.net.params["mine"][0].data[0])
        solver.solve()
        assert solver.test_all()[0]["loss"][0] < 0.5 * first
        assert solver.net.params["mine"][0].data[0] != scale
        assert solver.net.plans_memory == plan_memory


# ---- parameters -------------------------------------------------------------------------------------------


def test_parameters_are_saved_shared_and_multiplied(tmp_path: Path, cpu: CpuOps) -> None:
    text = inputs(x=(2, 2)) + python("Scaled", text="4", more="param { name: 'w' lr_mult: 3 decay_mult: 0 }") + python(
        "Scaled", "y", "z", "5", "param { name: 'w' }", "twin")
    net = make(text, cpu)
    assert [(item.name, item.lr_mult, item.decay_mult) for item in net.learnable] == [("mine[0]", 3, 0)]
    assert net.params["twin"][0].data == [4]
    net.params["mine"][0].data[0] = 7
    net.save(tmp_path / "w.caffemodel")
    other = make(text, cpu)
    other.copy_from(tmp_path / "w.caffemodel")
    assert other.params["mine"][0].data == other.params["twin"][0].data == [7]
    again = Net(net.to_proto(), caffe.TRAIN, ops=cpu)
    assert again.layers[1].blobs[0].data == [7]


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["setup", "reshape", "forward", "backward"])
def test_its_own_error_comes_through(where: str, cpu: CpuOps) -> None:
    with pytest.raises(RuntimeError, match="this is the user's") as caught:
        net = make(inputs(x=(2, 2)) + python("Raising", text=where), cpu)
        net.forward()
        net.backward()
    assert culprit(caught.value) == f"Raised by the Python layer 'mine' ({__name__}.Raising), in {where}"
    assert caught.traceback[-1].name == "fail"


def test_our_errors_in_it_name_the_layer(cpu: CpuOps) -> None:
    with pytest.raises(ShapeError, match=r"^mine \(Python\): blob: shape \(-1, 2\) has a negative size"):
        make(inputs(x=(2, 2)) + python("TooLarge"), cpu)


def test_a_layer_without_backward(cpu: CpuOps) -> None:
    net = make(inputs(x=(1, 2)) + python("OnlyForward"), cpu)
    np.testing.assert_array_equal(net.forward(x=[[3, -4]])["y"], [[3, -4]])
    with pytest.raises(NetError, match=r"mine \(Python\): its class OnlyForward has no method backward\(\)"):
        net.backward()


@pytest.mark.parametrize(("module", "kind", "message"), [
    ("", "Scaled", "needs python_param { module: '...' layer: '...' }"),
    ("no_such_module", "Scaled", "there is no Python module 'no_such_module' on Python's path or in the working "
                                 "folder .*PYTHONPATH"),
    (__name__, "Scled", "has no class 'Scled'; did you mean 'Scaled'"),
    (__name__, "NoLayer", rf"{__name__}.NoLayer is no layer; derive the class from barista.Layer"),
])
def test_a_class_that_cannot_be_used(module: str, kind: str, message: str, cpu: CpuOps) -> None:
    with pytest.raises(NetError, match=rf"^mine \(Python\): .*{message}"):
        make(inputs(x=(2, 2)) + python(kind, module=module), cpu)


def test_a_module_that_fails_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: CpuOps) -> None:
    (tmp_path / "imports_caffe.py").write_text("import caffe\n")
    (tmp_path / "divides.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="caffe") as caught:
        make(inputs(x=(2, 2)) + python("Any", module="imports_caffe"), cpu)
    assert "while its module was imported; write `import barista as caffe` there" in str(culprit(caught.value))
    with pytest.raises(ZeroDivisionError) as other:
        make(inputs(x=(2, 2)) + python("Any", module="divides"), cpu)
    assert str(culprit(other.value)).endswith("(divides.Any), while its module was imported")


# ---- who may run them -------------------------------------------------------------------------------------

TWICE = """import pathlib
import barista as caffe
pathlib.Path("ran").touch()
class Twice(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        if self.param_str == "fail":
            raise RuntimeError("so it goes")
        top[0].data[...] = 2 * bottom[0].data
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of layers and a network that uses it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("layers_of_the_folder", None)
    (tmp_path / "layers_of_the_folder.py").write_text(TWICE)
    data = layer("DummyData", "", "x", "dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 4 } }", "data")
    for name in ("good", "fail"):
        (tmp_path / f"{name}.prototxt").write_text(data + python("Twice", text=name, module="layers_of_the_folder"))
    return tmp_path


def test_scripts_may_and_find_the_working_folder(folder: Path) -> None:
    assert python_layers_allowed()
    net = Net("good.prototxt", caffe.TEST)
    assert (net.forward()["y"] == 8).all()


def test_refused_before_any_code_runs(folder: Path) -> None:
    message = (r"^mine \(Python\): would run the class 'Twice' of the Python module 'layers_of_the_folder', "
               r".* --allow-python-layers")
    with python_layers(False), pytest.raises(UnsupportedError, match=message):
        Net("good.prototxt", caffe.TEST)
    assert not (folder / "ran").exists()
    assert python_layers_allowed()


def test_commands_refuse_them_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["time", "--model", "good.prototxt", "--iterations", "1", "--phase", "TEST"]
    assert main(command) == 1
    assert "add --allow-python-layers" in capsys.readouterr().err
    assert not (folder / "ran").exists()
    assert main([*command, "--allow-python-layers"]) == 0
    assert (folder / "ran").exists()
    assert python_layers_allowed()


def test_a_command_says_whose_error_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", "fail.prototxt", "--iterations", "1", "--phase", "TEST",
                 "--allow-python-layers"]) == 1
    lines = capsys.readouterr().err
    assert "layers_of_the_folder.py" in lines
    assert ("barista: error: RuntimeError: so it goes. Raised by the Python layer 'mine' (layers_of_the_folder.Twice), "
            "in forward; the lines above lead to it") in lines


def test_the_documented_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: CpuOps) -> None:
    page = (Path(__file__).parent.parent / "docs" / "pycaffe.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*caffe\.Layer.*?)```", page, re.DOTALL)
    (text,) = re.findall(r"```\n(layer .*?)```", page, re.DOTALL)
    (tmp_path / "my_layers.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = make(inputs(x=(1, 2)) + text, cpu)
    np.testing.assert_array_equal(net.forward(x=[[4, -8]])["y"], [[1, -2]])
    np.testing.assert_array_equal(net.backward(y=[[1, 3]])["x"], [[0.25, 0.75]])
