"""What all OpenCL primitives share: the device, its memory, its kernels and the scratch memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import resources
from ...runtime.context import Context
from ...runtime.kernel import Kernel
from ...runtime.space import DeviceArray, OpenCLSpace


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

    def array(self, slot: str) -> DeviceArray:
        """The memory of `slot`."""
        array = self._arrays.get(slot)
        if array is None or array.shape[0] < self._reserved[slot]:
            self._arrays.pop(slot, None)
            array = self._arrays[slot] = self._space.allocate(self._reserved[slot], self._dtype)
        return array


class Device:
    """A context, its memory and the element type that kernels are compiled for.

    Attributes
    ----------
    context, space, dtype, scratch
    """

    def __init__(self, context: Context, dtype: np.dtype[Any]) -> None:
        self.context = context
        self.space = OpenCLSpace(context)
        self.dtype = dtype
        self.scratch = Scratch(self.space, dtype)

    def kernel(self, file: str, name: str, signature: str, macros: Mapping[str, object] | None = None,
               heavy: bool = False, head: str = "") -> Kernel:
        """Return kernel `name` of ``opencl_kernels/file``, a new object at each call.

        Parameters
        ----------
        signature, heavy : see `Kernel`
        macros : what the file is specialised with, besides REAL
        head : text put before the file
        """
        real = {"float32": "float", "float64": "double"}[self.dtype.name]
        program = self.context.programs.build(file, head + kernel_source(file), {"REAL": real, **(macros or {})})
        return Kernel(self.context, program, name, signature, self.dtype, heavy)


@functools.cache
def kernel_source(file: str) -> str:
    """Text of a file of ``opencl_kernels/``."""
    return resources.find("opencl_kernels", file).read_text(encoding="utf-8")
