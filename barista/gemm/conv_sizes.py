"""What an array that takes whole convolutions is compiled for, and what such an array does: FPGPT's."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..precision.formats import NumberFormat
from .engine import StageTimes
from .shapes import ConvolutionGeometry, Pass

# What the kernel's static_asserts allow.
LARGEST = 1024
PORT_BITS = (32, 64, 128, 256, 512, 1024)

_WHO = "FPGPT's kernel"


@dataclasses.dataclass(frozen=True)
class ConvSizes:
    """Sizes of FPGPT's array and of its memories.

    Parameters
    ----------
    x, y : columns and rows of the array
    z : words of INP that are at hand at once
    line_words : of each of the two line buffers
    kern_words : that a row of the array keeps of KERN
    out_words : that a column of the array keeps of OUT
    port_bits : width of the ports to memory

    Raises
    ------
    UnsupportedError : sizes that the kernel is not made for
    """

    x: int
    y: int
    z: int
    line_words: int
    kern_words: int
    out_words: int
    port_bits: int = 512

    def __post_init__(self) -> None:
        for name, size in self.fields().items():
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
                raise UnsupportedError(f"{_WHO}: {name} is {size!r}; give a whole number, 1 or above")
        if max(self.x, self.y) > LARGEST:
            raise UnsupportedError(f"{_WHO}: an array of {self.x} columns and {self.y} rows; it has {LARGEST} of each "
                                   "at the most")
        for name, size, least in (("line_words", self.line_words, 2 * self.z),
                                  ("kern_words", self.kern_words, 2 * self.y), ("out_words", self.out_words, 2)):
            if size % least:
                raise UnsupportedError(f"{_WHO}: {name}={size} is no multiple of {least}, by which that memory is laid "
                                       f"out at y={self.y}, z={self.z}; round it up")
        if self.port_bits not in PORT_BITS:
            raise UnsupportedError(f"{_WHO}: ports of {self.port_bits} bits; a width is one of "
                                   f"{', '.join(map(str, PORT_BITS))}")

    def __str__(self) -> str:
        return f"{self.x},{self.y}"

    def fields(self) -> dict[str, int]:
        """The sizes by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(ConvSizes)}

    @property
    def on_chip_words(self) -> dict[str, int]:
        """Words of each of the kernel's memories by its name in C++."""
        return {"line": 2 * self.line_words, "kern": self.y * self.kern_words, "out": self.x * self.out_words}


class ConvArray(Protocol):
    """Something that computes passes of convolutions on tensors as the framework has them.

    Attributes
    ----------
    name : for messages
    sizes : what it is compiled for
    format : its number format
    """

    name: str
    sizes: ConvSizes
    format: NumberFormat

    def convolve(self, geometry: ConvolutionGeometry, pass_: Pass, inp: npt.NDArray[Any],
                 kern: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], StageTimes]:
        """Compute one pass.

        Parameters
        ----------
        inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight, in the number format's words

        Returns
        -------
        output, times : y, dx or dw, in fixed point sums of 32 bits; and what it took

        Raises
        ------
        UnsupportedError : the array is too small for it
        DeviceError : the run failed
        """
        ...
