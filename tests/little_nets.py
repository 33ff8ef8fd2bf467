"""Nets of a few layers for tests: definitions from short texts, inputs without kinks, gradients by differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import barista
from barista.frontends.prototxt import parse_net
from barista.net import Net
from barista.ops.base import OpSet

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


def layer(type_: str, bottom: str = "x", top: str = "y", more: str = "", name: str = "layer") -> str:
    """Prototxt of one layer; `bottom` and `top` are names with blanks between them."""
    lines = [f"bottom: '{b}'" for b in bottom.split()] + [f"top: '{t}'" for t in top.split()]
    return f"\nlayer {{ name: '{name}' type: '{type_}' {' '.join(lines)} {more} }}"


def inputs(**shapes: Shape) -> str:
    """Prototxt of one Input layer a blob."""
    return "\n".join(f"layer {{ name: 'in_{name}' type: 'Input' top: '{name}' input_param {{ shape {{ "
                     + " ".join(f"dim: {d}" for d in shape) + " } } }" for name, shape in shapes.items())


def make(text: str, ops: OpSet, phase: int = barista.TRAIN, head: str = "force_backward: true",
         **more: Any) -> Net:
    """The net of a prototxt text."""
    return Net(parse_net(f"name: 'little' {head}\n{text}"), phase, ops=ops, **more)


def values(kind: str, shape: Shape, rng: np.random.Generator) -> Array:
    """Test data of a kind.

    signed: at least 0.2 away from 0.  distinct: signed, and no two closer than 0.03.
    positive: 0.5 to 2.  unit: 0.1 to 0.9.  labelsN: integers 0 to N-1.  margin: away from -1, 0 and 1.
    """
    if kind.startswith("labels"):
        return rng.integers(0, int(kind[6:]), shape).astype(np.float64)
    if kind == "positive":
        return rng.uniform(0.5, 2.0, shape)
    if kind == "unit":
        return rng.uniform(0.1, 0.9, shape)
    signs = rng.choice([-1.0, 1.0], shape)
    if kind == "distinct":
        count = int(np.prod(shape))
        return signs * (0.2 + 0.03 * rng.permutation(count).reshape(shape))
    if kind == "margin":
        return signs * (rng.uniform(0.2, 0.8, shape) + rng.integers(0, 2, shape))
    return signs * rng.uniform(0.2, 1.5, shape)


@dataclasses.dataclass
class Case:
    """One gradient check.

    Parameters
    ----------
    layers : prototxt of the layers behind the inputs
    inputs : name to shape, or to (shape, kind of `values`)
    fixed : inputs that have no gradient (labels, targets)
    dead : outputs whose gradient Caffe does not carry back
    param : kind of `values` that fills the parameters; None leaves what the fillers gave
    """

    layers: str
    inputs: Mapping[str, Shape | tuple[Shape, str]]
    phase: int = barista.TRAIN
    fixed: Sequence[str] = ()
    dead: Sequence[str] = ()
    param: str | None = "signed"
    prepare: Callable[[Net, np.random.Generator], None] | None = None

    def net(self, ops: OpSet, seed: int = 0) -> Net:
        """The net with inputs and parameters filled."""
        rng = np.random.default_rng(seed)
        shapes = {name: spec if not spec or isinstance(spec[0], int) else spec[0] for name,
                  spec in self.inputs.items()}
        net = make(inputs(**shapes) + self.layers, ops, self.phase)
        for name, spec in self.inputs.items():
            kind = "signed" if not spec or isinstance(spec[0], int) else spec[1]
            net.blobs[name].data[...] = values(kind, net.blobs[name].shape, rng)
        if self.param is not None:
            for item in net.learnable:
                item.blob.data[...] = values(self.param, item.blob.shape, rng)
        if self.prepare is not None:
            self.prepare(net, rng)
        return net


class Probe:
    """A net seen as the scalar function sum(output * seed) of its inputs and parameters.

    The seeds are random; a loss has its loss_weight instead.
    """

    def __init__(self, net: Net, dead: Sequence[str] = (), seed: int = 1) -> None:
        self.net = net
        rng = np.random.default_rng(seed)
        weights = net.blob_loss_weights
        self._run()
        self.seeds: dict[str, Array] = {}
        for name in net.outputs:
            shape = net.blobs[name].shape
            if weights[name]:
                self.seeds[name] = np.full(shape, weights[name])
            else:
                self.seeds[name] = np.zeros(shape) if name in dead else rng.uniform(-1, 1, shape)

    def _run(self) -> None:
        for item in self.net.layers:
            item.rng = np.random.default_rng(7)  # the same dropout mask each time
        self.net.forward_pass()

    def value(self) -> float:
        """The function at the present inputs and parameters."""
        self._run()
        return sum(float(np.vdot(self.net.blobs[name].data, seed)) for name, seed in self.seeds.items())

    def backward(self, clear: bool = True) -> None:
        """One forward and one backward pass; parameters keep their gradients where `clear` is false."""
        self._run()
        for name, seed in self.seeds.items():
            self.net.blobs[name].diff[...] = seed
        if clear:
            self.net.clear_param_diffs()
        self.net.backward_pass()

    def differences(self, array: Callable[[], Array], places: Array, step: float = 1e-5) -> Array:
        """Central differences with respect to the flat `places` of an array of the net."""
        result = np.empty(len(places))
        for number, place in enumerate(places):
            before = array().flat[place]
            array().flat[place] = before + step
            above = self.value()
            array().flat[place] = before - step
            below = self.value()
            array().flat[place] = before
            result[number] = (above - below) / (2 * step)
        return result


def check_gradients(case: Case, ops: OpSet, most: int = 40, tolerance: float = 2e-7) -> Net:
    """Hold the gradients of all inputs and parameters of a case against central differences.

    At most `most` elements of an array are looked at, spread over it at random.
    """
    net = case.net(ops)
    probe = Probe(net, case.dead)
    probe.backward()
    blobs = {name: net.blobs[name] for name in case.inputs if name not in case.fixed}
    blobs.update({item.name: item.blob for item in net.learnable if item.lr_mult})
    assert blobs
    analytic = {name: blob.diff.copy() for name, blob in blobs.items()}
    rng = np.random.default_rng(2)
    for name, blob in blobs.items():
        places = np.arange(blob.count) if blob.count <= most else rng.choice(blob.count, most, replace=False)
        numeric = probe.differences(lambda blob=blob: blob.data, places)
        np.testing.assert_allclose(analytic[name].reshape(-1)[places], numeric, rtol=tolerance,
                                   atol=tolerance * max(1.0, float(np.abs(numeric).max())), err_msg=name)
    return net
