"""Kernels with their arguments bound, ready to be enqueued."""

from __future__ import annotations

from typing import Any

import numpy as np

from .build_helpers import Recipe
from .context import Context
from .driver import cl
from .errors import device_error
from .programs import Source
from .space import DeviceArray

# Work-items a group.  On a CPU device a group is one call: cheap work-items are gathered so that the
# compiler makes a vector loop of them, work-items that are loops themselves run alone.
LIGHT_GROUP = 256
HEAVY_GROUP = 64
# PoCL makes other machine code where a range has more than 65535 work-items: this many groups of light ones are more.
MANY_GROUPS = 1 << 9


class Kernel:
    """One kernel at one call site.

    Kernels have one-dimensional ranges; the last parameter of each is ``const uint items``,
    how many work-items have something to do (the range is rounded up to whole groups).
    Setting an argument costs more than enqueuing, so only those that changed are set.  It is built with others by
    `Programs.complete`, or alone at its first run.

    Parameters
    ----------
    context : where it runs
    source, name : which kernel of which program
    signature : one letter for each parameter before `items`: ``b`` a buffer (or None, a null
        pointer), ``i`` a 32-bit integer, ``r`` a number of the type `real`, ``l`` bytes of local memory
    real : float32 or float64
    heavy : whether a work-item is a loop of some length by itself
    """

    def __init__(self, context: Context, source: Source, name: str, signature: str,
                 real: np.dtype[Any], heavy: bool = False) -> None:
        self._context = context
        self._kernel: cl.Kernel | None = None
        self.source = source
        self.recipe = Recipe(name, signature, real.name, heavy)
        types: dict[str, Any] = {"b": None, "i": np.int32, "r": real.type, "l": cl.LocalMemory}
        self._types = [types[letter] for letter in signature]
        self._bound: list[Any] = [_UNSET] * len(signature)
        self._items = -1
        self._arguments: tuple[DeviceArray | float | None, ...] = ()
        self._enqueued = (0,)
        self._group = ((1 if context.is_cpu else HEAVY_GROUP) if heavy
                       else min(LIGHT_GROUP, context.device.max_work_group_size),)
        context.programs.declare(self)

    @property
    def is_built(self) -> bool:
        """Whether the first run has nothing to build."""
        return self._kernel is not None

    def build(self) -> None:
        """Build it now, and start it with nothing to do: some drivers make machine code only then.

        Raises
        ------
        DeviceError : it does not build, or the driver refuses
        """
        kernel = self._create()
        try:
            for index, kind in enumerate(self._types):
                kernel.set_arg(index, None if kind is None else kind(1))
            kernel.set_arg(len(self._types), np.uint32(0))
            for groups in (1,) if self.recipe.heavy else (1, MANY_GROUPS):
                cl.enqueue_nd_range_kernel(self._context.queue, kernel, (groups * self._group[0],), self._group)
        except cl.Error as error:
            raise device_error(error, f"kernel {self.recipe.name} over no work-items") from error
        self._kernel = kernel

    def _create(self) -> cl.Kernel:
        program = self._context.programs.program(self.source)
        try:
            return cl.Kernel(program, self.recipe.name)
        except cl.Error as error:
            raise device_error(error, f"kernel {self.recipe.name} of {self.source.name}") from error

    def run(self, items: int, *arguments: DeviceArray | float | None) -> None:
        """Enqueue `items` work-items; with none nothing happens.

        Raises
        ------
        DeviceError : the driver refuses
        """
        if not items:
            return
        context, kernel = self._context, self._kernel
        try:
            if kernel is not None and items == self._items and arguments == self._arguments:
                # As at the last run: most primitives work on the same tensors in every step.
                event = cl.enqueue_nd_range_kernel(context.queue, kernel, self._enqueued, self._group)
                if context.measures:
                    context.note("kernel", event)
                return
            if kernel is None:
                kernel = self._kernel = self._create()
            for index, (argument, kind) in enumerate(zip(arguments, self._types, strict=True)):
                value: Any = argument.buffer if isinstance(argument, DeviceArray) else argument
                bound = self._bound[index]
                if value is not bound if kind is None else value != bound:
                    kernel.set_arg(index, value if kind is None else kind(value))
                    self._bound[index] = value
            if items != self._items:
                kernel.set_arg(len(self._types), np.uint32(items))
                self._items = items
                self._enqueued = (-(-items // self._group[0]) * self._group[0],)
            self._arguments = arguments
            context.note("kernel", cl.enqueue_nd_range_kernel(context.queue, kernel, self._enqueued, self._group))
        except cl.Error as error:
            raise device_error(error, f"kernel {self.recipe.name} over {items} work-items") from error


_UNSET = object()
