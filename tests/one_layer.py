"""One layer of a net run forward and backward on given arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from little_nets import inputs, make

import barista
from barista.net import Net
from barista.ops.base import OpSet

Array = npt.NDArray[Any]


def run(text: str, ops: OpSet, arrays: Mapping[str, Array], phase: int = barista.TRAIN) -> tuple[Net, dict[str, Array]]:
    """Run the layers `text` behind inputs that hold `arrays`, forward and backward.

    Returns
    -------
    the net, and the random gradients that its outputs were given
    """
    net = make(inputs(**{name: array.shape for name, array in arrays.items()}) + text, ops, phase)
    return net, again(net, arrays)


def again(net: Net, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run a net of `run` on other arrays, of other shapes too; what gradients stood in its blobs must not matter."""
    rng = np.random.default_rng(5)
    for name, array in arrays.items():
        net.blobs[name].reshape(*array.shape)
        net.blobs[name].data[...] = array
        net.blobs[name].diff[...] = np.nan
    net.forward_pass()
    seeds = {name: rng.normal(0, 1, net.blobs[name].shape) for name in net.outputs}
    for name, seed in seeds.items():
        net.blobs[name].diff[...] = seed
    net.clear_param_diffs()
    net.backward_pass()
    return seeds
