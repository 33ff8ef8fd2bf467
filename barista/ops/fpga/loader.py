"""Which bitstream is on the device: loaded when something needs it, replaced only by another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy.typing as npt

from ...errors import BitstreamError, nearest
from ...gemm.conv_sizes import ConvArray, ConvSizes
from ...gemm.engine import StageTimes, TileArray
from ...gemm.tiles import TileSizes
from ...precision.formats import NumberFormat

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
# What must be known of a bitstream before it is loaded: tiles, or the sizes of an array for whole convolutions.
Kind = tuple[TileSizes | ConvSizes, NumberFormat]
AnyArray = TileArray | ConvArray


class Loader:
    """Bitstreams by name, one of them on the device at a time.

    Parameters
    ----------
    kinds : sizes and number format of each bitstream
    load : puts a bitstream onto the device and returns the array that it makes there
    device : the device, for messages

    Attributes
    ----------
    current : name of the bitstream on the device, '' before the first
    swaps : how often a bitstream took the place of another
    load_s : what all loading took, in seconds
    """

    def __init__(self, kinds: Mapping[str, Kind], load: Callable[[str], AnyArray], device: str) -> None:
        self._kinds = dict(kinds)
        self._load = load
        self._array: AnyArray | None = None
        self.device = device
        self.current = ""
        self.swaps = 0
        self.load_s = 0.0

    @property
    def names(self) -> Sequence[str]:
        """The bitstreams that there are."""
        return list(self._kinds)

    def kind(self, name: str) -> Kind:
        """Sizes and number format of a bitstream.

        Raises
        ------
        BitstreamError : no such bitstream
        """
        if name not in self._kinds:
            hint = nearest(name, self._kinds) or f"there are: {', '.join(self._kinds) or 'none'}"
            raise BitstreamError(f"there is no bitstream {name!r} among those given; {hint}")
        return self._kinds[name]

    def is_whole(self, name: str) -> bool:
        """Whether a bitstream takes whole convolutions, and no matrix products.

        Raises
        ------
        BitstreamError : no such bitstream
        """
        return isinstance(self.kind(name)[0], ConvSizes)

    def tiles(self, name: str) -> TileSizes:
        """Tile sizes of a bitstream.

        Raises
        ------
        BitstreamError : no such bitstream, or it takes whole convolutions
        """
        array = self.kind(name)[0]
        if isinstance(array, TileSizes):
            return array
        raise BitstreamError(f"the bitstream {name} takes whole convolutions and computes no matrix products; name one "
                             "of a GEMM array")

    def sizes(self, name: str) -> ConvSizes:
        """Sizes of a bitstream that takes whole convolutions.

        Raises
        ------
        BitstreamError : no such bitstream, or it computes matrix products
        """
        array = self.kind(name)[0]
        if isinstance(array, ConvSizes):
            return array
        raise BitstreamError(f"the bitstream {name} computes matrix products and takes no whole convolutions; name one "
                             "of a convolution array")

    def use(self, name: str) -> TileArray:
        """The array of a bitstream that multiplies tiles, which is loaded unless it is on the device already.

        Raises
        ------
        BitstreamError : no such bitstream, another kind, or it does not load
        DeviceError : the device failed
        """
        self.tiles(name)
        return cast(TileArray, self._use(name))

    def use_whole(self, name: str) -> ConvArray:
        """The array of a bitstream that takes whole convolutions, likewise.

        Raises
        ------
        BitstreamError, DeviceError : as `use`
        """
        self.sizes(name)
        return cast(ConvArray, self._use(name))

    def _use(self, name: str) -> AnyArray:
        if name == self.current and self._array is not None:
            return self._array
        before, self.current, self._array = self.current, "", None  # a load that fails leaves nothing
        started = time.perf_counter()
        self._array = self._load(name)
        lapse_s = time.perf_counter() - started
        self.current = name
        self.load_s += lapse_s
        self.swaps += bool(before)
        log.log(logging.DEBUG if before else logging.INFO, "%s: bitstream %s loaded in %.3f s%s", self.device, name,
                lapse_s, f" in place of {before} (swap {self.swaps})" if before else "")
        return self._array


class LoadedArray:
    """A `TileArray` by the name of its bitstream, which is loaded when a product begins.

    Parameters
    ----------
    loader : has the bitstream
    name : which one

    Raises
    ------
    BitstreamError : no such bitstream, or it takes whole convolutions
    """

    def __init__(self, loader: Loader, name: str) -> None:
        self._loader = loader
        self.name = name
        self.tiles, self.format = loader.tiles(name), loader.kind(name)[1]
        self.overlaps = False  # known when it is loaded

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        """As `TileArray.begin`, after loading."""
        array = self._loader.use(self.name)
        self.overlaps = array.overlaps
        return array.begin(nr, nc, np_)

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        """As `TileArray.multiply`."""
        return self._loader.use(self.name).multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)
