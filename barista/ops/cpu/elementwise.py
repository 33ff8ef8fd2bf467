"""Element-wise programs on NumPy: a list of ufunc calls run chunk by chunk, so that temporaries stay in the cache."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import Elementwise, ElementwiseGroup
from ..program import Call, Constant, Name, Node, Program
from .threads import PARALLEL, Threads, split

# Elements a chunk at most.  More than fit into a core's L2 cache with all temporaries, since the threads wait for
# the interpreter lock after each ufunc: on small chunks two of them are slower than one (measured).
CHUNK = 262144

_ERF = np.frompyfunc(math.erf, 1, 1)


def _erf(x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """The error function, which NumPy lacks."""
    out[...] = _ERF(x)


UFUNCS: dict[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "neg": np.negative, "pow": np.power,
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "abs": np.abs, "sign": np.sign,
    "max": np.maximum, "min": np.minimum, "floor": np.floor, "erf": _erf,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}
COMPARISONS = frozenset(("<", "<=", ">", ">=", "==", "!="))

# Where an operand comes from: a tensor, a scalar, a number, a temporary, or an array filled with a number.
Source = tuple[str, Any]


class _Lowering:
    """Turns one program into steps (ufunc, operands, destination); destinations are tensors or temporaries."""

    def __init__(self, program: Program) -> None:
        self.steps: list[tuple[str, tuple[Source, ...], Source]] = []
        self.temporaries = 0
        self.program = program
        for target, expression in program.statements:
            self._assign(expression, ("tensor", target))

    def _assign(self, node: Node, target: Source) -> None:
        if isinstance(node, Call):
            self._call(node, target, 0)
        else:
            self.steps.append(("copy", (self._leaf(node),), target))

    def _leaf(self, node: Name | Constant) -> Source:
        if isinstance(node, Constant):
            return ("number", node.value)
        return ("tensor" if node.id in self.program.tensors else "scalar", node.id)

    def _operand(self, node: Node, depth: int, filled: bool = False) -> tuple[Source, int]:
        """Where the value of `node` will lie, and the first temporary that is free then."""
        if isinstance(node, Call):
            self.temporaries = max(self.temporaries, depth + 1)
            self._call(node, ("temporary", depth), depth)
            return ("temporary", depth), depth + 1
        leaf = self._leaf(node)
        # maximum, minimum and the bit masks below are five times faster on two arrays than on array and scalar.
        if filled and leaf[0] in ("number", "scalar"):
            return ("filled", leaf), depth
        return leaf, depth

    def _call(self, node: Call, target: Source, depth: int) -> None:
        filled = node.op in ("max", "min", "where")
        # A condition is computed last: there is one set of flags.
        order = (*range(1, len(node.args)), 0) if node.op == "where" else range(len(node.args))
        sources: dict[int, Source] = {}
        for index in order:
            sources[index], depth = self._operand(node.args[index], depth, filled)
        if node.op == "where" and node.args[2] == Constant(0.0):
            self.steps.append(("select", (sources[1],), target))
        elif node.op == "where":
            self.steps.append(("where", (sources[1], sources[2]), target))
        else:
            self.steps.append((node.op, tuple(sources[i] for i in range(len(node.args))), target))


class _Worker:
    """The temporaries of one thread, made for one program."""

    def __init__(self, lowering: _Lowering, dtype: np.dtype[Any], size: int) -> None:
        self.temporaries = [np.empty(size, dtype) for _ in range(lowering.temporaries)]
        self.flags = np.empty(size, np.bool_)
        # An integer as wide as the dtype: a comparison becomes all ones or all zeros in it.
        self.mask = np.empty(size, np.dtype(f"i{dtype.itemsize}"))
        self.filled: dict[Source, npt.NDArray[Any]] = {}
        for _, sources, _ in lowering.steps:
            for kind, leaf in sources:
                if kind == "filled":
                    self.filled[leaf] = np.full(size, leaf[1] if leaf[0] == "number" else 0.0, dtype)


class CpuElementwiseGroup(ElementwiseGroup):
    """An element-wise program over sets of tensors on the host; threads share those that are large."""

    space = HOST

    def __init__(self, program: Program, counts: Sequence[int], dtype: np.dtype[Any], threads: Threads) -> None:
        self._scalars = program.scalars
        self._accesses = [(name, operator.methodcaller(access, HOST)) for name, access in program.accesses]
        self._lowering = _Lowering(program)
        self._threads = threads
        # Large sets are cut for all workers, each to get as much; small ones are not worth waking another.
        self._shared: list[tuple[int, int, int]] = []  # (set, start, stop)
        self._alone: list[tuple[int, int, int]] = []
        for index, count in enumerate(counts):
            if count >= PARALLEL:
                turns = -(-count // (threads.count * CHUNK))
                self._shared += [(index, *piece) for piece in split(count, -(-count // (threads.count * turns)))]
            else:
                self._alone += [(index, *piece) for piece in split(count, CHUNK)]
        size = max((stop - start for _, start, stop in (*self._shared, *self._alone)), default=0)
        self._workers = [_Worker(self._lowering, dtype, size) for _ in range(threads.count if self._shared else 1)]

    def run(self, sets: Sequence[Mapping[str, Tensor]], **scalars: float) -> None:
        arrays = [{name: access(tensors[name]).reshape(-1) for name, access in self._accesses}
                  for tensors in sets]
        values = {name: float(scalars[name]) for name in self._scalars}
        for worker in self._workers:
            for leaf, array in worker.filled.items():
                if leaf[0] == "scalar":
                    array.fill(values[leaf[1]])

        if self._shared:
            self._threads.run(lambda i, w: self._chunk(arrays, values, self._workers[w], *self._shared[i]),
                              len(self._shared))
        for chunk in self._alone:
            self._chunk(arrays, values, self._workers[0], *chunk)

    def _chunk(self, sets: Sequence[Mapping[str, npt.NDArray[Any]]], values: Mapping[str, float], worker: _Worker,
               index: int, start: int, stop: int) -> None:
        arrays = {name: array[start:stop] for name, array in sets[index].items()}
        size = stop - start

        def get(source: Source) -> Any:
            kind, what = source
            if kind == "tensor":
                return arrays[what]
            if kind == "temporary":
                return worker.temporaries[what][:size]
            if kind == "filled":
                return worker.filled[what][:size]
            return values[what] if kind == "scalar" else what

        for op, sources, target in self._lowering.steps:
            out = get(target)
            if op == "copy":
                np.copyto(out, get(sources[0]))
            elif op in COMPARISONS:
                UFUNCS[op](get(sources[0]), get(sources[1]), out=worker.flags[:size])
            elif op in ("where", "select"):
                self._select(worker, [get(source) for source in sources], out)
            else:
                UFUNCS[op](*[get(source) for source in sources], out=out)

    def _select(self, worker: _Worker, choices: list[npt.NDArray[Any]], out: npt.NDArray[Any]) -> None:
        """out = choices[0] where the flags are set, else choices[1] (or 0), without a branch an element."""
        size = out.size
        mask, bits = worker.mask[:size], out.view(worker.mask.dtype)
        np.negative(worker.flags[:size].view(np.int8), out=mask, dtype=mask.dtype)
        chosen = choices[0].view(mask.dtype)
        if len(choices) == 1:
            np.bitwise_and(chosen, mask, out=bits)
        else:
            other = choices[1].view(mask.dtype)
            np.bitwise_and(np.bitwise_xor(chosen, other), mask, out=mask)
            np.bitwise_xor(mask, other, out=bits)


class CpuElementwise(Elementwise):
    """An element-wise program on the host."""

    space = HOST

    def __init__(self, program: Program, count: int, dtype: np.dtype[Any], threads: Threads) -> None:
        self._group = CpuElementwiseGroup(program, [count], dtype, threads)

    def run(self, tensors: Mapping[str, Tensor], **scalars: float) -> None:
        self._group.run([tensors], **scalars)
