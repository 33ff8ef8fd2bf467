"""A loss that is no number: where that begins in the net, and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..blob import HOST, Tensor
from ..errors import SolverError
from ..layers import Labels, Layer
from ..net import Net


def not_finite(net: Net, loss: float, where: str, rate: float | None = None) -> SolverError:
    """The error for a loss that is not finite.

    Parameters
    ----------
    net : the net as its passes left it
    loss : the loss
    where : which loss that is, such as ``at iteration 3 the loss``
    rate : the learning rate, where the net is trained
    """
    is_label, finding = _first_not_finite(net)
    if is_label:
        # A device cannot stop at such a label, as the processor does: NaN is how it says so.
        return SolverError(f"training stopped: {where} is {loss:g}, since {finding}; check the labels, num_output of "
                           "the last layer, or set ignore_label; snapshots made before are untouched")
    given = "" if rate is None else f", with learning rate {rate:g}"
    return SolverError(f"training diverged: {where} is {loss:g}{given}. {finding} Lower base_lr (to a tenth, say), "
                       "check the scale of the input, or set clip_gradients; snapshots made before are untouched")


def _first_not_finite(net: Net) -> tuple[bool, str]:
    """Where values that are not finite begin: whether labels are the reason, and a clause or a sentence."""
    for index, layer in enumerate(net.layers):
        bottoms = layer.param.bottom
        wrong = None if layer.labels is None else _wrong_labels(layer, layer.labels, net.blobs[bottoms[1]].value)
        if net.plans_memory and bottoms:
            # Others lie where its tops were: make them again.
            net.forward_pass(index, index)
        parts: list[tuple[str, Any]] = [
            *((f"parameter {layer.name}[{i}]", blob) for i, blob in enumerate(layer.blobs)),
            *((f"blob {top!r} of layer {layer.name!r} ({layer.type})", net.blobs[top]) for top in layer.param.top)]
        for name, blob in parts:
            values = blob.value.read(HOST)
            bad = int(np.count_nonzero(~np.isfinite(values)))
            if bad and wrong is not None:
                return True, wrong
            if bad:
                return False, f"The first values that are not finite: {bad} of the {values.size} of {name}."
    return False, "All blobs and parameters are finite; only the sum of the losses is not."


def _wrong_labels(layer: Layer, known: Labels, given: Tensor) -> str | None:
    """A clause on the labels that are no class of a layer, or None where all are."""
    labels = given.read(HOST)
    values = np.trunc(labels)  # as all backends do
    wrong = ~((values >= 0) & (values < known.classes))
    if known.ignored is not None:
        wrong &= values != known.ignored
    count = int(np.count_nonzero(wrong))
    if not count:
        return None
    name = layer.in_users_names(layer.param.bottom[1])
    return (f"label {labels[wrong].flat[0]:g} of blob {name!r} is none of the {known.classes} classes "
            f"0 to {known.classes - 1} of {layer.name} ({layer.type}), and {count} of the {values.size} labels of the "
            f"batch {'is' if count == 1 else 'are'} none")
