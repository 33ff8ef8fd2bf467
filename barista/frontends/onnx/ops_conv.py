"""Conv and ConvTranspose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from barista.errors import NetError

from .converter import Converter, handler
from .node import Node
from .windows import Windows, attributes, halves, padded


def _operands(converter: Converter, node: Node) -> tuple[tuple[int, ...], npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Shape of the input, weights, and biases where there are any."""
    shape = converter.shape(node.input(0))
    weights = converter.need(node, 1, "the weights")
    bias = converter.need(node, 2, "the biases") if node.input(2) else None
    if len(shape) < 3 or weights.ndim != len(shape):
        raise NetError(f"{node.label}: needs an input (N, C, ...) with spatial axes and weights of as many axes; got "
                       f"{shape} and {weights.shape}")
    return shape, weights, bias


def _check(node: Node, shape: Sequence[int], weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None, group: int,
           channels: int, outputs: int) -> None:
    """See whether input, weights and biases fit together."""
    if group < 1 or shape[1] != channels or shape[1] % group or weights.shape[0] % group or outputs < 1:
        raise NetError(f"{node.label}: weights {weights.shape} in group={group} take {channels} channels; the input "
                       f"{shape} has {shape[1]}")
    if bias is not None and bias.shape != (outputs,):
        raise NetError(f"{node.label}: {outputs} output channels need biases of shape ({outputs},), got {bias.shape}")


def _param(windows: Windows, pad: Sequence[int], outputs: int, group: int, bias: bool) -> dict[str, Any]:
    """The convolution_param; fields stay out where they are Caffe's default."""
    param: dict[str, Any] = {"num_output": outputs, "kernel_size": _short(windows.kernel)}
    for name, values, default in (("stride", windows.stride, 1), ("pad", pad, 0), ("dilation", windows.dilation, 1)):
        if set(values) != {default}:
            param[name] = _short(values)
    if group != 1:
        param["group"] = group
    if not bias:
        param["bias_term"] = False
    return param


def _short(values: Sequence[int]) -> list[int]:
    """One number where all axes have the same."""
    return list(values[:1] if len(set(values)) == 1 else values)


@handler("Conv")
def conv(converter: Converter, node: Node) -> None:
    """Convolution; padding that differs before and behind is a Pad layer's."""
    shape, weights, bias = _operands(converter, node)
    group, outputs = node.attr("group", 1), weights.shape[0]
    _check(node, shape, weights, bias, group, weights.shape[1] * group, outputs)
    windows = padded(node, shape[2:], attributes(node, len(shape) - 2, weights.shape[2:]))
    x, pad = node.input(0), windows.begin
    if not windows.symmetric:
        x = converter.fresh(f"{node.output(0)}_padded")
        converter.layer("Pad", [node.input(0)], [x], pad_param={"begin": [0, 0, *windows.begin],
                                                               "end": [0, 0, *windows.end]}, name=x)
        pad = (0,) * len(pad)
    converter.layer("Convolution", [x], [node.output(0)], blobs=[weights] if bias is None else [weights, bias],
                    convolution_param=_param(windows, pad, outputs, group, bias is not None))


@handler("ConvTranspose")
def conv_transpose(converter: Converter, node: Node) -> None:
    """Deconvolution; what differs before and behind is cut off, or added, by a Pad layer."""
    shape, weights, bias = _operands(converter, node)
    group = node.attr("group", 1)
    outputs = weights.shape[1] * group
    _check(node, shape, weights, bias, group, weights.shape[0], outputs)
    windows = _transposed(node, shape[2:], attributes(node, len(shape) - 2, weights.shape[2:]))
    # Caffe's padding is cut off alike on both ends. What is left to cut may be negative: then zeros are added.
    pad = tuple(max(min(ends), 0) for ends in zip(windows.begin, windows.end, strict=True))
    begin = [p - b for p, b in zip(pad, windows.begin, strict=True)]
    end = [p - e for p, e in zip(pad, windows.end, strict=True)]
    y = node.output(0)
    if not any([*begin, *end]):
        converter.layer("Deconvolution", [node.input(0)], [y], blobs=[weights] if bias is None else [weights, bias],
                        convolution_param=_param(windows, pad, outputs, group, bias is not None))
        return
    whole = converter.fresh(f"{y}_whole")
    converter.layer("Deconvolution", [node.input(0)], [whole], blobs=[weights],
                    convolution_param=_param(windows, pad, outputs, group, False))
    # What is added gets the bias too.
    cut = converter.fresh(f"{y}_cut") if bias is not None else y
    converter.layer("Pad", [whole], [cut], pad_param={"begin": [0, 0, *begin], "end": [0, 0, *end]})
    if bias is not None:
        converter.layer("Bias", [cut], [y], blobs=[bias])


def _transposed(node: Node, sizes: Sequence[int], windows: Windows) -> Windows:
    """The windows of a transposed convolution, with what is cut off before and behind, negative where it grows."""
    extra = tuple(node.attr("output_padding") or (0,) * len(sizes))
    wanted = node.attr("output_shape")
    if len(extra) != len(sizes) or (wanted and len(wanted) < len(sizes)):
        raise NetError(f"{node.label}: output_padding={list(extra)} and output_shape={wanted} need an entry for each "
                       f"of the {len(sizes)} spatial axes")
    whole = [stride * (size - 1) + extent for size, stride, extent in
             zip(sizes, windows.stride, windows.extent, strict=True)]
    if wanted or windows.same:
        target = wanted[-len(sizes):] if wanted else [size * s for size, s in zip(sizes, windows.stride, strict=True)]
        total = [w + e - t for w, e, t in zip(whole, extra, target, strict=True)]
        begin, end = halves([max(t, 0) for t in total], node.attr("auto_pad") == "SAME_UPPER")
        end = tuple(e + min(t, 0) for e, t in zip(end, total, strict=True))
        windows = dataclasses.replace(windows, begin=begin, end=end)
    windows = dataclasses.replace(windows, end=tuple(e - x for e, x in zip(windows.end, extra, strict=True)))
    output = [w - b - e for w, b, e in zip(whole, windows.begin, windows.end, strict=True)]
    if min(output) < 1:
        raise NetError(f"{node.label}: pads leave an output of {output} from an input of {list(sizes)}")
    return windows
