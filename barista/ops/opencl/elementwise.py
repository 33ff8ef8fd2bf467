"""Element-wise programs compiled to OpenCL C."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from ...blob import Tensor
from ...runtime.context import Context
from ...runtime.kernel import Kernel
from ...runtime.space import DeviceArray
from ..base import Elementwise, ElementwiseGroup
from ..program import Constant, Name, Node, Program
from .device import Device
from .tuning import AVX512_FLAGS

# How an operator or function reads in OpenCL C; the names are those of elementwise.cl and functions.cl.
_TEXT = {
    "+": "({} + {})", "-": "({} - {})", "*": "({} * {})", "/": "({} / {})", "neg": "(-{})",
    "<": "({} < {})", "<=": "({} <= {})", ">": "({} > {})", ">=": "({} >= {})", "==": "({} == {})", "!=": "({} != {})",
    "exp": "exponential({})", "log": "logarithm({})", "sqrt": "square_root({})", "tanh": "hyperbolic_tangent({})",
    "pow": "power({}, {})", "abs": "magnitude({})", "sign": "signum({})", "max": "larger({}, {})",
    "min": "smaller({}, {})", "floor": "floor({})", "erf": "erf({})", "where": "({} ? {} : {})",
}

# Elements of a work-item on CPU devices: long against the price of a work-group, short enough to share out.
RUN = 8192
# Elsewhere one element a work-item, this many a block.
LANES = 256
# Sets of one launch: each adds to what a work-item goes through to find its own.
MOST_SETS = 64

# The bytes of a kernel's argument that is no pointer, at most.
_SCALAR_BYTES = 8


class OpenCLElementwiseGroup(ElementwiseGroup):
    """An element-wise program over sets of tensors; as many sets in a launch as a kernel takes arguments."""

    variant = "generated kernel"

    def __init__(self, device: Device, program: Program, counts: Sequence[int]) -> None:
        self.space = device.space
        self._scalars = program.scalars
        self._accesses = [(name, operator.methodcaller(access, device.space)) for name, access in program.accesses]
        self._counts = list(counts)
        context = device.context
        run, lanes = (RUN, 1) if context.is_cpu else (1, LANES)
        self._block, self._lanes = run * lanes, lanes
        # Launches of the same number of sets share a compiled program.
        launches = -(-len(counts) // sets_at_most(context, program)) if counts else 0
        self._sets = -(-len(counts) // launches) if launches else 0
        macros = {**device.functions, "RUN": run, "LANES": lanes,
                  "AVX512": int(context.processor_flags >= AVX512_FLAGS)}
        signature = ("b" * len(program.tensors) + "i") * self._sets + "r" * len(program.scalars)
        text = head(program, device.dtype.name, self._sets)
        self._kernels: list[Kernel] = [device.kernel("elementwise.cl", "elementwise", signature, macros,
                                                     heavy=context.is_cpu, head=text) for _ in range(launches)]

    def run(self, sets: Sequence[Mapping[str, Tensor]], **scalars: float) -> None:
        values = [scalars[name] for name in self._scalars]
        for launch, kernel in enumerate(self._kernels):
            first = launch * self._sets
            arguments: list[DeviceArray | float] = []
            items = 0
            for tensors, count in zip(sets[first:first + self._sets], self._counts[first:first + self._sets],
                                      strict=True):
                arguments += [access(tensors[name]) for name, access in self._accesses]
                arguments.append(count)
                items += -(-count // self._block) * self._lanes
            # The last launch may have fewer sets: nothing is done on one without elements.
            unused = [*arguments[:len(self._accesses)], 0]
            kernel.run(items, *arguments, *unused * (self._sets - len(arguments) // len(unused)), *values)


class OpenCLElementwise(Elementwise):
    """An element-wise program on a device; one kernel does all its statements."""

    variant = OpenCLElementwiseGroup.variant

    def __init__(self, device: Device, program: Program, count: int) -> None:
        self.space = device.space
        self._group = OpenCLElementwiseGroup(device, program, [count])

    def run(self, tensors: Mapping[str, Tensor], **scalars: float) -> None:
        self._group.run([tensors], **scalars)


def sets_at_most(context: Context, program: Program) -> int:
    """How many sets one launch takes: the driver limits the bytes of a kernel's arguments."""
    pointer_bytes = context.device.address_bits // 8
    free_bytes = context.device.max_parameter_size - _SCALAR_BYTES * (len(program.scalars) + 1)
    return max(1, min(MOST_SETS, free_bytes // (pointer_bytes * len(program.tensors) + _SCALAR_BYTES)))


def head(program: Program, dtype: str, sets: int) -> str:
    """The macros that make elementwise.cl compute `program` over `sets` sets."""
    types = {name: f"__global {'' if name in program.writes else 'const '}real *" for name in program.tensors}
    scalars = [f"const real s_{name}" for name in program.scalars]
    arguments = [argument for number in range(sets)
                 for argument in (*(f"{kind}a_{name}_{number}" for name, kind in types.items()),
                                  f"const int count_{number}")]
    tables = [f"const int counts[] = {{{_numbered('count', sets)}}};"]
    tables += [f"{kind}const all_{name}[] = {{{_numbered(f'a_{name}', sets)}}};" for name, kind in types.items()]
    macros = {
        "SETS": str(sets),
        "ARGUMENTS": ", ".join([*arguments, *scalars]),
        "TABLES": " ".join(tables),
        "PARAMETERS": ", ".join([*(f"{kind}at_{name}" for name, kind in types.items()), *scalars]),
        "CHOSEN": ", ".join([*(f"all_{name}[set]" for name in types), *(f"s_{name}" for name in program.scalars)]),
        # Each tensor is read once and written once, whatever the statements do.
        "STATEMENTS": " ".join([
            *(f"real t_{name} = at_{name}[i];" if name in program.reads else f"real t_{name};" for name in types),
            *(f"t_{target} = {_expression(node, program, dtype)};" for target, node in program.statements),
            *(f"at_{name}[i] = t_{name};" for name in program.writes)]),
    }
    return "".join(f"#define {name} {text}\n" for name, text in macros.items())


def _numbered(name: str, sets: int) -> str:
    return ", ".join(f"{name}_{number}" for number in range(sets))


def _expression(node: Node, program: Program, dtype: str) -> str:
    if isinstance(node, Constant):
        # A literal without f is a double, which not every device has.
        return f"{node.value!r}f" if dtype == "float32" else repr(node.value)
    if isinstance(node, Name):
        return f"t_{node.id}" if node.id in program.tensors else f"s_{node.id}"
    return _TEXT[node.op].format(*(_expression(argument, program, dtype) for argument in node.args))
