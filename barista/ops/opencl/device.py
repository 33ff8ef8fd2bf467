"""What all OpenCL primitives share: the device, its memory, its kernels and the scratch memory."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ... import resources
from ...errors import DeviceError, out_of_memory
from ...runtime.context import Context
from ...runtime.kernel import Kernel
from ...runtime.programs import Source
from ...runtime.space import DeviceArray, OpenCLSpace
from . import tuning

_INCLUDE = re.compile(r'^#include "(\w+\.cl)"$', re.MULTILINE)


class Scratch:
    """Memory that a primitive uses only while it runs, shared by all of them.

    The queue runs one primitive after the other, so they can all work in one place.  A slot
    is as large as the most that was reserved, and is allocated at its first use.
    """

    def __init__(self, space: OpenCLSpace, dtype: np.dtype[Any]) -> None:
        self._space = space
        self._dtype = dtype
        self._reserved: dict[str, int] = {}
        self._arrays: dict[str, DeviceArray] = {}

    def reserve(self, slot: str, count: int) -> int:
        """Make sure of `count` elements in `slot`; returns their bytes."""
        self._reserved[slot] = max(count, self._reserved.get(slot, 0))
        return count * self._dtype.itemsize

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Reserve, within, in memory that is given back at the end: for primitives that are only tried."""
        reserved, arrays = self._reserved, self._arrays
        self._reserved, self._arrays = {}, {}
        try:
            yield
        finally:
            self._reserved, self._arrays = reserved, arrays

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, as far as they were reserved."""
        return sum(self._reserved.values()) * self._dtype.itemsize

    def array(self, slot: str, count: int | None = None) -> DeviceArray:
        """The memory of `slot`.

        Parameters
        ----------
        count : elements that will do where the device has no memory for all that was reserved; None: none less do

        Raises
        ------
        DeviceError : the device has not even those
        """
        wanted = self._reserved[slot]
        array = self._arrays.get(slot)
        if array is not None and array.shape[0] >= (wanted if count is None else count):
            return array
        self._arrays.pop(slot, None)
        try:
            array = self._space.allocate(wanted, self._dtype)
        except DeviceError as error:
            if count is None or count >= wanted or not out_of_memory(error):
                raise
            array = self._space.allocate(count, self._dtype)
        self._arrays[slot] = array
        return array


class Device:
    """A context, its memory and the element type that kernels are compiled for.

    Parameters
    ----------
    gemm : parameters of matrix products; None takes those of the tables

    Attributes
    ----------
    context, space, dtype, scratch
    gemm : the parameters of matrix products
    """

    def __init__(self, context: Context, dtype: np.dtype[Any],
                 gemm: tuning.GemmParameters | None = None) -> None:
        self.context = context
        self.space = OpenCLSpace(context)
        self.dtype = dtype
        self.scratch = Scratch(self.space, dtype)
        self.gemm = gemm or tuning.parameters(context, dtype)

    @property
    def functions(self) -> dict[str, object]:
        """The macro with which functions.cl is fast here."""
        return {"OWN_FUNCTIONS": int(self.context.is_cpu and self.dtype.name == "float32")}

    def kernel(self, file: str, name: str, signature: str, macros: Mapping[str, object] | None = None,
               heavy: bool = False, head: str = "") -> Kernel:
        """Return kernel `name` of ``opencl_kernels/file``, a new object at each call, built later (see `Programs`).

        Parameters
        ----------
        signature, heavy : see `Kernel`
        macros : what the file is specialised with, besides REAL
        head : text put before the file
        """
        real = {"float32": "float", "float64": "double"}[self.dtype.name]
        source = Source.of(file, head + kernel_source(file), {"REAL": real, **(macros or {})})
        return Kernel(self.context, source, name, signature, self.dtype, heavy)


@functools.cache
def kernel_source(file: str) -> str:
    """Text of a file of ``opencl_kernels/``, with the text of what it includes in its place.

    Drivers need not know where the files are, and find what they compiled before by the text.
    """
    text = resources.find("opencl_kernels", file).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: kernel_source(found[1]), text)
