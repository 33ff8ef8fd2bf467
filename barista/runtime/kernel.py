"""Kernels with their arguments bound, ready to be enqueued."""

from __future__ import annotations

from typing import Any

import numpy as np

from .context import Context
from .driver import cl
from .errors import device_error
from .space import DeviceArray

# Work-items a group.  On a CPU device a group is one call: cheap work-items are gathered so that the
# compiler makes a vector loop of them, work-items that are loops themselves run alone.
LIGHT_GROUP = 256
HEAVY_GROUP = 64


class Kernel:
    """One kernel at one call site.

    Kernels have one-dimensional ranges; the last parameter of each is ``const uint items``,
    how many work-items have something to do (the range is rounded up to whole groups).
    Setting an argument costs more than enqueuing, so only those that changed are set.

    Parameters
    ----------
    context : where it runs
    program, name : which kernel
    signature : one letter for each parameter before `items`: ``b`` a buffer (or None, a null
        pointer), ``i`` a 32-bit integer, ``r`` a number of the type `real`, ``l`` bytes of local memory
    real : float32 or float64
    heavy : whether a work-item is a loop of some length by itself
    """

    def __init__(self, context: Context, program: cl.Program, name: str, signature: str,
                 real: np.dtype[Any], heavy: bool = False) -> None:
        self._context = context
        self._kernel = cl.Kernel(program, name)
        self._name = name
        types: dict[str, Any] = {"b": None, "i": np.int32, "r": real.type, "l": cl.LocalMemory}
        self._types = [types[letter] for letter in signature]
        self._bound: list[Any] = [_UNSET] * len(signature)
        self._items = -1
        self._enqueued = (0,)
        self._group = ((1 if context.is_cpu else HEAVY_GROUP) if heavy
                       else min(LIGHT_GROUP, context.device.max_work_group_size),)

    def run(self, items: int, *arguments: DeviceArray | float | None) -> None:
        """Enqueue `items` work-items; with none nothing happens.

        Raises
        ------
        DeviceError : the driver refuses
        """
        if not items:
            return
        try:
            for index, (argument, kind) in enumerate(zip(arguments, self._types, strict=True)):
                value: Any = argument.buffer if isinstance(argument, DeviceArray) else argument
                bound = self._bound[index]
                if value is not bound if kind is None else value != bound:
                    self._kernel.set_arg(index, value if kind is None else kind(value))
                    self._bound[index] = value
            if items != self._items:
                self._kernel.set_arg(len(self._types), np.uint32(items))
                self._items = items
                self._enqueued = (-(-items // self._group[0]) * self._group[0],)
            context = self._context
            context.note("kernel", cl.enqueue_nd_range_kernel(context.queue, self._kernel, self._enqueued, self._group))
        except cl.Error as error:
            raise device_error(error, f"kernel {self._name} over {items} work-items") from error


_UNSET = object()
