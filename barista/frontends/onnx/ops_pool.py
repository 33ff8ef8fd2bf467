"""Poolings: MaxPool, AveragePool and their global forms."""

from __future__ import annotations

import dataclasses
from typing import Any

from barista.errors import NetError

from .converter import Converter, handler
from .node import Node
from .windows import Windows, attributes, padded


@handler("MaxPool", "AveragePool")
def pool(converter: Converter, node: Node) -> None:
    """Caffe's Pooling where it says the same, or else PoolingNd."""
    shape = converter.shape(node.input(0))
    if len(shape) < 3 or not node.attr("kernel_shape"):
        raise NetError(f"{node.label}: needs an input (N, C, ...) with spatial axes, got shape {shape}, and a "
                       f"kernel_shape, got {node.attr('kernel_shape')}")
    windows = padded(node, shape[2:], attributes(node, len(shape) - 2, node.attr("kernel_shape")))
    ceil = bool(node.attr("ceil_mode")) and not windows.same
    counts = bool(node.attr("count_include_pad"))
    kind = "MAX" if node.op == "MaxPool" else "AVE"
    x = node.input(0)
    if min([*windows.begin, *windows.end]) < 0:
        if node.output(1):
            converter.unsupported(node, "no layer gives the places of maxima where padding is negative")
        x, windows = _cropped(converter, x, windows)
        shape = converter.shape(x)
    mode = None if node.output(1) else _caffes_mode(windows, shape, kind, ceil, counts)
    if mode is None:
        _pool_nd(converter, node, x, windows, kind, ceil, counts)
        return
    param: dict[str, Any] = {"pool": kind} if kind != "MAX" else {}
    for names, values, default in ((("kernel_size", "kernel_h", "kernel_w"), windows.kernel, None),
                                   (("stride", "stride_h", "stride_w"), windows.stride, (1, 1)),
                                   (("pad", "pad_h", "pad_w"), windows.begin, (0, 0))):
        if values[0] == values[1] and values != default:
            param[names[0]] = values[0]
        elif values != default:
            param[names[1]], param[names[2]] = values
    if mode == "FLOOR":
        param["round_mode"] = mode
    converter.layer("Pooling", [x], [node.output(0)], pooling_param=param)


def _cropped(converter: Converter, x: str, windows: Windows) -> tuple[str, Windows]:
    """The input without what negative padding cuts off, and the windows with the padding that remains."""
    begin, end = ([0, 0, *(min(pad, 0) for pad in pads)] for pads in (windows.begin, windows.end))
    y = converter.fresh(f"{x}_cropped")
    converter.layer("Pad", [x], [y], pad_param={"begin": begin, "end": end}, name=y)
    converter.set_shape(y, [size + b + e for size, b, e in zip(converter.shape(x), begin, end, strict=True)],
                        converter.dtype(x))
    return y, dataclasses.replace(windows, begin=tuple(max(pad, 0) for pad in windows.begin),
                                  end=tuple(max(pad, 0) for pad in windows.end))


def _caffes_mode(windows: Windows, shape: tuple[int, ...], kind: str, ceil: bool, counts: bool) -> str | None:
    """The round_mode with which Caffe's Pooling has these windows, or None where it has not.

    Its windows begin as far before the input as ONNX's where the padding before it is the same; how many there are is
    up to the rounding.  A maximum does not look at padding.  Caffe's average counts it, up to where the padded input
    ends.
    """
    if len(shape) != 4 or set(windows.dilation) != {1}:
        return None
    axes = list(zip(shape[2:], windows.kernel, windows.stride, windows.begin, windows.end, strict=True))
    if any(not 0 <= begin < kernel or end < 0 for _, kernel, _, begin, end in axes):
        return None
    if kind == "AVE" and not (windows.symmetric if counts else not any(windows.begin)):
        return None
    wanted = [_steps(size + begin + end - kernel, stride, ceil, size + begin)
              for size, kernel, stride, begin, end in axes]
    for mode in ("CEIL", "FLOOR") if ceil or not windows.symmetric else ("FLOOR", "CEIL"):
        limits = [size + begin if any(windows.begin) else None for size, _, _, begin, _ in axes]
        found = [_steps(size + 2 * begin - kernel, stride, mode == "CEIL", limit)
                 for (size, kernel, stride, begin, _), limit in zip(axes, limits, strict=True)]
        inside = all((count - 1) * stride - begin < size
                     for count, (size, _, stride, begin, _) in zip(found, axes, strict=True))
        if found == wanted and inside:
            return mode
    return None


def _steps(span: int, stride: int, ceil: bool, limit: int | None) -> int:
    """Number of windows over what remains behind the first one; none starts at `limit` or behind it."""
    count = (-(-span // stride) if ceil else span // stride) + 1
    return count - 1 if limit is not None and (count - 1) * stride >= limit else count


def _pool_nd(converter: Converter, node: Node, x: str, windows: Windows, kind: str, ceil: bool, counts: bool) -> None:
    """A PoolingNd, with the places of maxima where the node gives them."""
    param: dict[str, Any] = {"pool": kind, "kernel": windows.kernel, "stride": windows.stride}
    if set(windows.dilation) != {1}:
        param["dilation"] = windows.dilation
    if any([*windows.begin, *windows.end]):
        param.update(pad_begin=windows.begin, pad_end=windows.end)
    flags = {"ceil_mode": ceil, "count_include_pad": counts and kind == "AVE",
             "column_major": node.attr("storage_order") == 1}
    param.update({name: True for name, flag in flags.items() if flag})
    tops = [node.output(0), *([node.output(1)] if node.output(1) else [])]
    converter.layer("PoolingNd", [x], tops, pooling_nd_param=param)


@handler("GlobalAveragePool", "GlobalMaxPool")
def global_pool(converter: Converter, node: Node) -> None:
    """A Pooling over the whole image, or a Reduce of what has not two spatial axes."""
    kind = {"GlobalMaxPool": "MAX", "GlobalAveragePool": "AVE"}[node.op]
    axes = len(converter.shape(node.input(0)))
    if axes == 4:
        converter.layer("Pooling", [node.input(0)], [node.output(0)],
                        pooling_param={"pool": kind, "global_pooling": True})
    elif axes > 2:
        converter.layer("Reduce", [node.input(0)], [node.output(0)], reduce_param={
            "operation": "MAX" if kind == "MAX" else "MEAN", "axis": range(2, axes), "keepdims": True})
    else:
        raise NetError(f"{node.label}: needs an input (N, C, ...) with spatial axes, got "
                       f"{converter.shape(node.input(0))}")
