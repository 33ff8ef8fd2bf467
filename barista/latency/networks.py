"""The convolutions of the networks that validation and the published figures speak of, as shapes alone.

The networks that ship stand here once more, so that models can be checked without opening a net; a test holds that
the two agree.  Only `alexnet_cifar10` is in no prototxt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..errors import UnsupportedError, nearest
from ..gemm.shapes import ConvolutionGeometry, Pass
from .workload import Workload


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of square images with square kernels.

    Parameters
    ----------
    name : of the layer
    side : height and width of its input
    in_channels, out_channels, kernel, stride, pad, group : as in Caffe
    """

    name: str
    side: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    pad: int = 0
    group: int = 1

    def geometry(self, batch: int) -> ConvolutionGeometry:
        """Its geometry over a batch."""
        return ConvolutionGeometry(batch, self.in_channels, self.out_channels, (self.side,) * 2, (self.kernel,) * 2,
                                   (self.stride,) * 2, (self.pad,) * 2, (1, 1), self.group)


def _inception(name: str, side: int, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int,
               projection: int) -> Iterator[Convolution]:
    """The six convolutions of an inception block (Szegedy and others, 2014, Table 1)."""
    yield Convolution(f"{name}/1x1", side, channels, one, 1)
    yield Convolution(f"{name}/3x3_reduce", side, channels, reduce3, 1)
    yield Convolution(f"{name}/3x3", side, reduce3, three, 3, pad=1)
    yield Convolution(f"{name}/5x5_reduce", side, channels, reduce5, 1)
    yield Convolution(f"{name}/5x5", side, reduce5, five, 5, pad=2)
    yield Convolution(f"{name}/pool_proj", side, channels, projection, 1)


def _googlenet() -> Iterator[Convolution]:
    """Without the two convolutions of the auxiliary classifiers, which the thesis does not count."""
    yield Convolution("conv1/7x7_s2", 224, 3, 64, 7, stride=2, pad=3)
    yield Convolution("conv2/3x3_reduce", 56, 64, 64, 1)
    yield Convolution("conv2/3x3", 56, 64, 192, 3, pad=1)
    channels = 192
    for name, side, one, reduce3, three, reduce5, five, projection in (
            ("3a", 28, 64, 96, 128, 16, 32, 32), ("3b", 28, 128, 128, 192, 32, 96, 64),
            ("4a", 14, 192, 96, 208, 16, 48, 64), ("4b", 14, 160, 112, 224, 24, 64, 64),
            ("4c", 14, 128, 128, 256, 24, 64, 64), ("4d", 14, 112, 144, 288, 32, 64, 64),
            ("4e", 14, 256, 160, 320, 32, 128, 128),
            ("5a", 7, 256, 160, 320, 32, 128, 128), ("5b", 7, 384, 192, 384, 48, 128, 128)):
        yield from _inception(f"inception_{name}", side, channels, one, reduce3, three, reduce5, five, projection)
        channels = one + three + five + projection


def _squeezenet() -> Iterator[Convolution]:
    yield Convolution("conv1", 227, 3, 64, 3, stride=2)
    channels = 64
    for number, side, squeeze, expand in ((2, 56, 16, 64), (3, 56, 16, 64), (4, 28, 32, 128), (5, 28, 32, 128),
                                          (6, 14, 48, 192), (7, 14, 48, 192), (8, 14, 64, 256), (9, 14, 64, 256)):
        yield Convolution(f"fire{number}/squeeze1x1", side, channels, squeeze, 1)
        yield Convolution(f"fire{number}/expand1x1", side, squeeze, expand, 1)
        yield Convolution(f"fire{number}/expand3x3", side, squeeze, expand, 3, pad=1)
        channels = 2 * expand
    yield Convolution("conv10", 14, channels, 1000, 1)


def _resnet20() -> Iterator[Convolution]:
    """With 1x1 convolutions as shortcuts where sizes change: the 21 convolutions that the thesis counts."""
    yield Convolution("conv1", 32, 3, 16, 3, pad=1)
    channels, side = 16, 32
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in (1, 2, 3):
            name, stride = f"stage{stage}_block{block}", width // channels
            if stride > 1:
                yield Convolution(f"{name}_shortcut", side, channels, width, 1, stride=stride)
            yield Convolution(f"{name}_conv1", side, channels, width, 3, stride=stride, pad=1)
            side //= stride
            yield Convolution(f"{name}_conv2", side, width, width, 3, pad=1)
            channels = width


NETWORKS: dict[str, tuple[Convolution, ...]] = {
    "lenet": (Convolution("conv1", 28, 1, 20, 5), Convolution("conv2", 12, 20, 50, 5)),
    "cifar10_full": (Convolution("conv1", 32, 3, 32, 5, pad=2), Convolution("conv2", 16, 32, 32, 5, pad=2),
                     Convolution("conv3", 8, 32, 64, 5, pad=2)),
    "resnet20_cifar10": tuple(_resnet20()),
    "alexnet": (Convolution("conv1", 227, 3, 96, 11, stride=4), Convolution("conv2", 27, 96, 256, 5, pad=2, group=2),
                Convolution("conv3", 13, 256, 384, 3, pad=1), Convolution("conv4", 13, 384, 384, 3, pad=1, group=2),
                Convolution("conv5", 13, 384, 256, 3, pad=1, group=2)),
    # The thesis, section 4.3, trains AlexNet on CIFAR-10; outputs of 8, 4, 2, 2 and 2 pixels a side and one group are
    # the reading under which its Table 4.1 follows from its equations.
    "alexnet_cifar10": (Convolution("conv1", 32, 3, 64, 11, stride=4, pad=5),
                        Convolution("conv2", 4, 64, 192, 5, pad=2), Convolution("conv3", 2, 192, 384, 3, pad=1),
                        Convolution("conv4", 2, 384, 256, 3, pad=1), Convolution("conv5", 2, 256, 256, 3, pad=1)),
    "squeezenet_1_1": tuple(_squeezenet()),
    "googlenet": tuple(_googlenet()),
    "inception_3a": tuple(_inception("inception_3a", 28, 192, 64, 96, 128, 16, 32, 32)),
}
"""By name; `inception_3a` is GoogLeNet's first inception block alone."""

# Layers with weights go before these, so that their first convolution has a grad_input too.
_PARTS = ("inception_3a",)


def network_workloads(name: str, batch: int) -> list[Workload]:
    """Every pass of every convolution: forward in order, then backward in reverse.

    Parameters
    ----------
    name : of the network, see `NETWORKS`
    batch : images

    Raises
    ------
    UnsupportedError : no such network
    """
    if name not in NETWORKS:
        hint = nearest(name, NETWORKS) or f"known: {', '.join(NETWORKS)}"
        raise UnsupportedError(f"network {name!r} is not known; {hint}")
    layers = NETWORKS[name]
    found = [Workload(layer.name, Pass.FORWARD, layer.geometry(batch)) for layer in layers]
    for layer in reversed(layers):
        found.append(Workload(layer.name, Pass.GRAD_WEIGHT, layer.geometry(batch)))
        if layer is not layers[0] or name in _PARTS:
            found.append(Workload(layer.name, Pass.GRAD_INPUT, layer.geometry(batch)))
    return found
