"""Every layer against figures that Caffe 1.0 computed: forward, backward, statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import barista
from barista.frontends.prototxt import parse_net
from barista.layers import layer_types
from barista.net import Net

CASES = sorted((Path(__file__).parent / "golden" / "layers").glob("*.npz"))

# Layer types of later versions; a type that is here and registered fails below.
NOT_YET: set[str] = set()


def types_of(case: Path) -> set[str]:
    return {layer.type for layer in parse_net(str(np.load(case)["net"])).layer}


SUPPORTED = [case for case in CASES if not types_of(case) & NOT_YET]


def test_lists_are_true() -> None:
    assert len(CASES) > 130
    assert not NOT_YET & set(layer_types())
    assert {t for case in SUPPORTED for t in types_of(case)} <= set(layer_types())


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    largest = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * max(largest, 1e-30))


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: case.stem)
def test_layer(case: Path, cpu) -> None:
    figures = np.load(case)

    def entries(kind: str):
        for key in figures.files:
            head, *rest = key.split(":")
            if head == kind:
                yield rest, figures[key]

    net = Net(parse_net(str(figures["net"])), getattr(barista, str(figures["phase"])), ops=cpu)
    for (blob,), value in entries("in"):
        net.blobs[blob].data[...] = value
    for (layer, index), value in entries("param"):
        net.params[layer][int(index)].data[...] = value
    net.forward()
    for (blob,), value in entries("out"):
        close(net.blobs[blob].data, value)
    for (layer, index), value in entries("param_after"):
        close(net.params[layer][int(index)].data, value)
    net.clear_param_diffs()
    for (blob,), value in entries("topdiff"):
        net.blobs[blob].diff[...] = value
    net.backward()
    for (blob,), value in entries("diff"):
        close(net.blobs[blob].diff, value)
    for (layer, index), value in entries("pdiff"):
        close(net.params[layer][int(index)].diff, value)
