"""Windows of convolutions and poolings: the attributes that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from barista.errors import NetError

from .node import Node

Sizes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a node, with one number for each spatial axis.

    Attributes
    ----------
    kernel, stride, dilation : of the windows
    begin, end : padding before and behind
    same : whether ``auto_pad`` chose the padding
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    begin: Sizes
    end: Sizes
    same: bool

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same before and behind, and none is cut off."""
        return self.begin == self.end and min(self.begin, default=0) >= 0

    @property
    def extent(self) -> Sizes:
        """What a window covers of each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def attributes(node: Node, spatial: int, kernel: Sequence[int]) -> Windows:
    """The windows that a node's attributes describe, before ``auto_pad``.

    Parameters
    ----------
    node : the node
    spatial : number of spatial axes
    kernel : sizes of the kernel, which the attribute must not contradict

    Raises
    ------
    NetError : attributes that contradict each other
    """
    def numbers(name: str, default: int, count: int, least: int) -> Sizes:
        values = tuple(node.attr(name) or (default,) * count)
        if len(values) != count:
            raise NetError(f"{node.label}: {name}={list(values)} has {len(values)} entries; the input has {spatial} "
                           f"spatial axes, for which {count} are needed")
        if min(values, default=least) < least:
            raise NetError(f"{node.label}: {name}={list(values)}; each must be {least} or more")
        return values

    given = tuple(node.attr("kernel_shape") or kernel)
    if given != tuple(kernel) or len(given) != spatial:
        raise NetError(f"{node.label}: kernel_shape={list(given)} and weights with a kernel {list(kernel)} contradict "
                       f"each other; the input has {spatial} spatial axes")
    if min(given, default=1) < 1:
        raise NetError(f"{node.label}: kernel_shape={list(given)}; each must be 1 or more")
    auto = node.attr("auto_pad", "NOTSET") or "NOTSET"
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise NetError(f"{node.label}: auto_pad={auto!r} is none of NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    pads = numbers("pads", 0, 2 * spatial, -2**31) if auto == "NOTSET" else (0,) * 2 * spatial
    dilation = numbers("dilations", 1, spatial, 1)
    return Windows(given, numbers("strides", 1, spatial, 1), dilation, pads[:spatial], pads[spatial:],
                   auto.startswith("SAME"))


def padded(node: Node, sizes: Sequence[int], windows: Windows) -> Windows:
    """The windows of a convolution or pooling over axes of `sizes`, with the padding that ``auto_pad`` chooses.

    SAME makes as many windows as steps of the stride fit into the input, rounded up.  Where the stride is larger than
    a window that padding may be negative.
    """
    if not windows.same:
        return windows
    total = [(-(-size // stride) - 1) * stride + extent - size
             for size, stride, extent in zip(sizes, windows.stride, windows.extent, strict=True)]
    begin, end = halves(total, node.attr("auto_pad") == "SAME_UPPER")
    return dataclasses.replace(windows, begin=begin, end=end)


def halves(total: Sequence[int], upper: bool) -> tuple[Sizes, Sizes]:
    """Padding before and behind; an odd one goes behind where `upper`.  Halves are rounded towards 0."""
    begin = tuple(int((pad if upper else pad + 1) / 2) for pad in total)
    return begin, tuple(pad - first for pad, first in zip(total, begin, strict=True))
