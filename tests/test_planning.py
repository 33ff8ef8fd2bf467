"""What planners read of a network: the passes that really run, in their order, and shapes without any data."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from barista.blob import Tensor
from barista.cli.arguments import Parser, UsageError
from barista.cli.planning import add_planning, net_workloads, open_planning_net
from barista.errors import NetError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.net import Net
from barista.ops.base import Convolution
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import NetParameter
from barista.resources import find

TRAIN, TEST = 0, 1


def options(*words: str) -> argparse.Namespace:
    parser = Parser("barista plan", "", "")
    add_planning(parser)
    return parser.read(words)


def opened(network: str, *words: str, file: str = "train_val.prototxt") -> Net:
    return open_planning_net(options("--model", str(find("prototxt", network, file)), *words))


# ---- the passes -------------------------------------------------------------------------------------------

class NotingOps(CpuOps):
    """Notes which convolution runs which pass."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, Pass, ConvolutionGeometry]] = []

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        return Noting(super().convolution(geometry), self.ran, self.owner.layer, geometry)


class Noting(Convolution):
    def __init__(self, inner: Convolution, ran: list[tuple[str, Pass, ConvolutionGeometry]], layer: str,
                 geometry: ConvolutionGeometry) -> None:
        self.inner, self.space = inner, inner.space
        self.note = lambda pass_: ran.append((layer, pass_, geometry))

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        self.note(Pass.FORWARD)
        self.inner.forward(x, w, bias, y)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        self.note(Pass.GRAD_WEIGHT)
        self.inner.grad_weight(x, dy, dw)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        self.note(Pass.GRAD_INPUT)
        self.inner.grad_input(dy, w, dx)


INPUTS = 'layer { name: "in" type: "Input" top: "a" top: "b" top: "t" input_param { ' \
         'shape { dim: 2 dim: 4 dim: 6 dim: 6 } shape { dim: 2 dim: 4 dim: 6 dim: 6 } shape { dim: 2 dim: 3 } } }\n'


def convolution(name: str, bottom: str, top: str, rest: str = "", type_: str = "Convolution") -> str:
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    tops = " ".join(f'top: "{one}"' for one in top.split())
    return (f'layer {{ name: "{name}" type: "{type_}" {bottoms} {tops} convolution_param {{ num_output: 4 '
            f'kernel_size: 3 group: 2 }} {rest} }}\n')


LOSS = """layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "t" top: "loss" }
"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }\n'
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"

NETS = {
    "two layers": convolution("one", "a", "x") + RELU + convolution("two", "x", "y") + LOSS,
    "a deconvolution": convolution("one", "a", "x") + convolution("up", "x", "y", type_="Deconvolution") + LOSS,
    "a deconvolution first": convolution("up", "a", "x", type_="Deconvolution") + convolution("one", "x", "y") + LOSS,
    "frozen at the start": convolution("one", "a", "x", FROZEN) + convolution("two", "x", "y") + LOSS,
    "frozen in between": convolution("one", "a", "x") + convolution("two", "x", "y", FROZEN) + LOSS,
    "frozen weights": convolution("one", "a", "x", "param { lr_mult: 0 }") + convolution("two", "x", "y") + LOSS,
    "several bottoms": convolution("one", "a b", "x u") + convolution("two", "x u", "v w")
    + 'layer { name: "sum" type: "Eltwise" bottom: "v" bottom: "w" top: "y" }\n' + LOSS,
    "a branch": convolution("one", "a", "x") + convolution("two", "x", "y") + convolution("three", "x", "w") + LOSS,
    "a stop": convolution("one", "a", "x") + convolution("two", "x", "y", "propagate_down: false") + LOSS,
    "an input that is asked for": convolution("one", "a", "y", "propagate_down: true") + LOSS,
    "no loss": convolution("one", "a", "x") + convolution("two", "x", "y"),
    "forced": "force_backward: true\n" + convolution("one", "a", "x") + convolution("two", "x", "y") + LOSS,
    "forced without a loss": "force_backward: true\n" + convolution("one", "a", "y"),
}


@pytest.mark.parametrize("name", NETS)
def test_the_workloads_are_the_passes_that_run(name: str) -> None:
    param = text_format.Parse(INPUTS + NETS[name], NetParameter())
    ops = NotingOps()
    net = Net(param, TRAIN, ops=ops)
    net.forward_pass()
    net.backward_pass()
    assert len(ops.ran) >= 1
    assert [(work.layer, work.pass_, work.geometry) for work in net_workloads(net)] == ops.ran


def test_lenet_in_the_order_of_execution() -> None:
    net = opened("lenet", "--input-shape", "1,28,28")
    assert [work.name for work in net_workloads(net)] == [
        "conv1 forward", "conv2 forward", "conv2 grad_weight", "conv2 grad_input", "conv1 grad_weight"]
    assert {work.geometry.x_shape for work in net_workloads(net)} == {(64, 1, 28, 28), (64, 20, 12, 12)}


def test_testing_runs_forward_alone() -> None:
    net = opened("lenet", "--input-shape", "1,28,28", "--phase", "test")
    assert [(work.name, work.geometry.batch) for work in net_workloads(net)] == [
        ("conv1 forward", 100), ("conv2 forward", 100)]


@pytest.mark.parametrize(("network", "size", "passes"), [
    ("googlenet", 224, 57 * 3 - 1), ("resnet20_cifar10", 32, 21 * 3 - 1), ("alexnet", 227, 5 * 3 - 1),
    ("vgg16", 224, 13 * 3 - 1), ("squeezenet_1_1", 227, 26 * 3 - 1)])
def test_networks_that_ship(network: str, size: int, passes: int) -> None:
    """170 products in GoogLeNet, as the thesis counts them; nothing is computed, and little is held, to know."""
    net = opened(network, "--input-shape", f"3,{size},{size}", "--batch", "2")
    workloads = net_workloads(net)
    if network == "googlenet":  # the auxiliary classifiers have a convolution each
        workloads = [work for work in workloads if not work.layer.startswith("loss")]
    assert len(workloads) == passes
    assert {work.geometry.batch for work in workloads} == {2}


# ---- opening ----------------------------------------------------------------------------------------------

def test_a_database_that_is_here_gives_the_shape(digits: Path, tmp_path: Path) -> None:
    text = find("prototxt", "lenet_digits", "train_val.prototxt").read_text()
    (tmp_path / "net.prototxt").write_text(text.replace('source: "', f'source: "{digits}/'))
    for words, shape in (((), (64, 1, 28, 28)), (("--batch", "5"), (5, 1, 28, 28)),
                         (("--batch", "5", "--input-shape", "3,30,31"), (5, 3, 30, 31))):
        net = open_planning_net(options("--model", str(tmp_path / "net.prototxt"), *words))
        assert net.blobs["data"].shape == shape
        assert net.blobs["label"].shape == shape[:1]


def test_a_deploy_net_has_its_own_shape() -> None:
    for words, shape in (((), (10, 3, 227, 227)), (("--batch", "3"), (3, 3, 227, 227)),
                         (("--input-shape", "3,231,227"), (10, 3, 231, 227))):
        net = opened("alexnet", *words, file="deploy.prototxt")
        assert net.blobs["data"].shape == shape
        assert {work.pass_ for work in net_workloads(net)} == {Pass.FORWARD}


def test_parameters_stay_at_zero_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("barista").setLevel(logging.INFO)
    net = opened("lenet", "--input-shape", "1,28,28")
    assert not np.any(net.params["conv1"][0].data)
    assert caplog.messages == []
    assert logging.getLogger("barista").level == logging.INFO


@pytest.mark.parametrize(("words", "shape"), [
    (("lenet",), "--input-shape C,H,W"), (("googlenet", "--phase", "TEST"), "--input-shape C,224,224")])
def test_a_database_that_is_missing_is_named(words: Any, shape: str) -> None:
    with pytest.raises(NetError, match=rf"^data \(Data\): its database '\w+_lmdb' is not here, .*give it: {shape}$"):
        opened(*words)


def test_a_shape_that_no_layer_takes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'name: "n" layer { name: "d" type: "DummyData" top: "a" dummy_data_param { shape { dim: 1 dim: 2 } } }')
    message = r"net\.prototxt: --batch has nothing to change; no layer is of type Data, ImageData"
    with pytest.raises(NetError, match=message):
        open_planning_net(options("--model", str(tmp_path / "net.prototxt"), "--batch", "2"))


@pytest.mark.parametrize("shape", ["3,32", "3,0,32", "3,a,32", "", "3,32,32,1", "-1,2,2"])
def test_what_is_no_shape(shape: str) -> None:
    with pytest.raises(UsageError, match=r"is not three whole numbers C,H,W such as 3,32,32"):
        options("--model", "net.prototxt", f"--input-shape={shape}")
