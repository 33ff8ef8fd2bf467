"""Caffe to ONNX and back: networks that ship, and nets of which Caffe's own figures are kept, stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_conformance_layers import CASES
from test_onnx_export import NOT_EXPORTED, close, export

pytest.importorskip("onnx")

import barista
from barista.frontends.onnx import read_onnx
from barista.frontends.prototxt import parse_net, read_net
from barista.net import Net
from barista.ops.cpu import CpuOps

SHIPPED = sorted((Path(__file__).parents[1] / "prototxt").glob("*/deploy.prototxt"))
# Those of tens or hundreds of megabytes.
LARGE = {"alexnet", "vgg16", "googlenet", "squeezenet_1_1"}

# What ONNX says by Greater, TopK, Mod or a Gather at computed places, which no layer says as generally as they do.
ONE_WAY = {"act_threshold_18", "argmax", "argmax_axis", "argmax_val", "batch_reindex", "pool_max_mask"}


def filled(net: Net) -> Net:
    """Parameters that keep values of about the same size from layer to layer, and statistics that change them."""
    rng = np.random.default_rng(1)
    for layer in net.layers:
        for blob in layer.blobs:
            fan_in = max(1, int(np.prod(blob.shape[1:])))
            if layer.type == "BatchNorm" or len(blob.shape) == 1:
                blob.data[...] = rng.uniform(0.5, 1.5, blob.shape)
            else:
                blob.data[...] = rng.standard_normal(blob.shape, np.float32) * np.sqrt(2 / fan_in)
    return net


def returned(net: Net, fold_batch_norm: bool = False, opset: int = 17) -> Net:
    """The net as it comes back, with the same inputs; both have run."""
    definition = read_onnx(export(net, fold_batch_norm=fold_batch_norm, opset=opset))
    back = Net(definition, barista.TEST, ops=CpuOps(np.float32))
    for name in back.inputs:
        back.blobs[name].data[...] = net.blobs[name].data
    net.forward()
    back.forward()
    return back


@pytest.mark.parametrize("path", [pytest.param(path, marks=pytest.mark.slow) if path.parent.name in LARGE else path
                                  for path in SHIPPED], ids=lambda path: path.parent.name)
def test_networks_that_ship(path: Path) -> None:
    definition = read_net(path)
    for layer in definition.layer:
        for shape in layer.input_param.shape:
            shape.dim[0] = 2
        # Probabilities are all but 0 and 1 with random weights; the scores before them tell more.
        if layer.type == "Softmax":
            layer.type = "Split"
    net = filled(Net(definition, barista.TEST, ops=CpuOps(np.float32)))
    rng = np.random.default_rng(2)
    for name in net.inputs:
        net.blobs[name].data[...] = rng.standard_normal(net.blobs[name].shape, np.float32)
    back = returned(net)
    assert back.inputs == net.inputs
    assert back.outputs == net.outputs
    for name in net.outputs:
        assert np.ptp(net.blobs[name].data) > 0.01
        close(back.blobs[name].data, net.blobs[name].data)
    if any(layer.type == "BatchNorm" for layer in net.layers):
        again = returned(net, fold_batch_norm=True)
        for name in net.outputs:
            close(again.blobs[name].data, net.blobs[name].data)


@pytest.mark.parametrize("number", [number for number, case in enumerate(CASES) if case not in NOT_EXPORTED
                                    and case.stem not in ONE_WAY],
                         ids=lambda number: CASES[number].stem)
def test_nets_that_caffe_has_computed(number: int) -> None:
    figures = np.load(CASES[number])
    net = Net(parse_net(str(figures["net"])), barista.TEST, ops=CpuOps(np.float32))
    for key in figures.files:
        head, *rest = key.split(":")
        if head == "in":
            net.blobs[rest[0]].data[...] = figures[key]
        elif head == "param":
            net.params[rest[0]][int(rest[1])].data[...] = figures[key]
    back = returned(net, opset=(13, 17, 18, 21)[number % 4])
    for name in back.outputs:
        close(back.blobs[name].data, net.blobs[name.removesuffix("_output")].data)
