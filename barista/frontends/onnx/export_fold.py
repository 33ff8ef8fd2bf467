"""BatchNorm as a factor and an offset for each channel: taken in by what stands before it or behind it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from barista.frontends.onnx.export_graph import Array, Step, UnsayableError

# Types whose weights can take in what each of their channels is multiplied by.
_FOLDABLE = ("Convolution", "Deconvolution", "InnerProduct")


def batch_norm_statistics(step: Step) -> tuple[Array, Array]:
    """Mean and variance of each channel that a BatchNorm layer holds, its factor applied."""
    channels = _channels(step)
    total = float(step.blob(2, (1,))[0])
    factor = np.float32(1 / total if total else 0.0)
    return step.blob(0, (channels,)) * factor, step.blob(1, (channels,)) * factor


def uses_batch_statistics(step: Step) -> bool:
    """Whether a BatchNorm layer normalises by the batch at hand although it is not trained."""
    param = step.param.batch_norm_param
    return param.HasField("use_global_stats") and not param.use_global_stats


def absorb_scales(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """Let each BatchNorm take in the Scale that alone reads it: its blobs then are mean, variance, factor, scale, bias.

    Parameters
    ----------
    outputs : values that somebody looks at
    """
    return _joined(steps, outputs, _absorb)


def fold_into_weights(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """Let convolutions and inner products take in each BatchNorm and Scale that alone reads them."""
    return _joined(steps, outputs, _fold)


def _joined(steps: Sequence[Step], outputs: Collection[str],
            join: Callable[[Step, Step], Step | None]) -> list[Step]:
    """Replace each pair of steps of which the second alone reads the first by what `join` makes of it."""
    uses = Counter(name for step in steps for name in step.inputs)
    made: dict[str, int] = {}
    result: list[Step | None] = []
    for step in steps:
        first = made.get(step.inputs[0]) if len(step.inputs) == 1 else None
        before = None if first is None else result[first]
        if before is not None and len(before.outputs) == 1 and uses[step.inputs[0]] == 1 \
                and step.inputs[0] not in outputs:
            both = join(before, step)
            if both is not None and first is not None:
                result[first] = None
                step = both
        made.update(dict.fromkeys(step.outputs, len(result)))
        result.append(step)
    return [step for step in result if step is not None]


def _channels(step: Step) -> int:
    shape = step.in_shapes[0]
    return 1 if len(shape) == 1 else shape[1]


def _affine(step: Step) -> tuple[Array, Array] | None:
    """The factor and offset for each channel of axis 1 that a step comes to; None if it is something else."""
    if len(step.in_shapes[0]) < 2 or len(step.inputs) != 1:
        return None
    channels = _channels(step)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if step.type == "Scale":
        param = step.param.scale_param
        if step.axis(param.axis) != 1 or param.num_axes != 1:
            return None
        return step.blob(0, (channels,)), step.blob(1, (channels,)) if param.bias_term else zeros
    if step.type == "BatchNorm" and not uses_batch_statistics(step):
        mean, variance = (values.astype(np.float64) for values in batch_norm_statistics(step))
        scale = step.blobs[3] if len(step.blobs) > 3 else ones
        bias = step.blobs[4] if len(step.blobs) > 4 else zeros
        factor = scale / np.sqrt(variance + step.param.batch_norm_param.eps)
        return factor, bias - mean * factor
    return None


def _absorb(norm: Step, scale: Step) -> Step | None:
    if norm.type != "BatchNorm" or scale.type != "Scale" or uses_batch_statistics(norm) or len(norm.blobs) != 3:
        return None
    affine = _affine(scale)
    if affine is None:
        return None
    return dataclasses.replace(norm, outputs=scale.outputs, out_shapes=scale.out_shapes,
                               blobs=[*norm.blobs, *affine])


def _fold(product: Step, step: Step) -> Step | None:
    """The product with other weights and a bias."""
    if product.type not in _FOLDABLE or len(product.inputs) != 1:
        return None
    try:
        affine = _affine(step)
        if affine is None:
            return None
        factor, offset = affine
        weights = product.blob(0).astype(np.float64)
        bias = product.blob(1, factor.shape).astype(np.float64) if len(product.blobs) > 1 else np.zeros(len(factor))
    except UnsayableError:
        return None  # said where the layer itself is exported
    param = type(product.param)()
    param.CopyFrom(product.param)
    del param.param[:]  # the weights are not those of layers that share them any more
    if product.type == "InnerProduct":
        if len(product.out_shapes[0]) != 2:
            return None
        param.inner_product_param.bias_term = True
        weights = weights.reshape((-1, len(factor)) if param.inner_product_param.transpose else (len(factor), -1))
        weights = weights * (factor if param.inner_product_param.transpose else factor[:, None])
    else:
        if product.axis(param.convolution_param.axis) != 1:
            return None
        param.convolution_param.bias_term = True
        if product.type == "Convolution":
            weights = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
        else:
            group = param.convolution_param.group
            grouped = weights.reshape(group, weights.shape[0] // group, len(factor) // group, *weights.shape[2:])
            weights = (grouped * factor.reshape(group, 1, -1, *[1] * (weights.ndim - 2))).reshape(weights.shape)
    return dataclasses.replace(product, param=param, outputs=step.outputs, out_shapes=step.out_shapes,
                               blobs=[weights, bias * factor + offset])
