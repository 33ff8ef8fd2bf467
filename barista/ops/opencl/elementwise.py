"""Element-wise programs compiled to OpenCL C."""

from __future__ import annotations

from collections.abc import Mapping

from ...blob import Tensor
from ..base import Elementwise
from ..program import Constant, Name, Node, Program
from .device import Device

# How an operator or function reads in OpenCL C; the names are those of elementwise.cl or builtins.
_TEXT = {
    "+": "({} + {})", "-": "({} - {})", "*": "({} * {})", "/": "({} / {})", "neg": "(-{})",
    "<": "({} < {})", "<=": "({} <= {})", ">": "({} > {})", ">=": "({} >= {})", "==": "({} == {})", "!=": "({} != {})",
    "exp": "exp({})", "log": "log({})", "sqrt": "sqrt({})", "tanh": "tanh({})", "pow": "pow({}, {})",
    "abs": "magnitude({})", "sign": "signum({})", "max": "larger({}, {})", "min": "smaller({}, {})",
    "where": "({} ? {} : {})",
}


class OpenCLElementwise(Elementwise):
    """An element-wise program on a device; one kernel does all its statements."""

    variant = "generated kernel"

    def __init__(self, device: Device, program: Program, count: int) -> None:
        self.space = device.space
        self._program = program
        self._count = count
        self._kernel = device.kernel("elementwise.cl", "elementwise",
                                     "b" * len(program.tensors) + "r" * len(program.scalars),
                                     head=head(program, device.dtype.name))

    def run(self, tensors: Mapping[str, Tensor], **scalars: float) -> None:
        program = self._program
        arrays = []
        # Those read come first: of two names on one memory the contents are moved before one is overwritten.
        for name in program.tensors:
            tensor = tensors[name]
            if name not in program.writes:
                arrays.append(tensor.read(self.space))
            elif name in program.reads:
                arrays.append(tensor.update(self.space))
            else:
                arrays.append(tensor.write(self.space))
        self._kernel.run(self._count, *arrays, *(scalars[name] for name in program.scalars))


def head(program: Program, dtype: str) -> str:
    """The macros ARGUMENTS and STATEMENTS that make elementwise.cl compute `program`."""
    arguments = [f"__global {'' if name in program.writes else 'const '}real *t_{name}" for name in program.tensors]
    arguments += [f"const real s_{name}" for name in program.scalars]
    statements = [f"t_{target}[i] = {_expression(node, program, dtype)};" for target, node in program.statements]
    return f"#define ARGUMENTS {', '.join(arguments)},\n#define STATEMENTS {' '.join(statements)}\n"


def _expression(node: Node, program: Program, dtype: str) -> str:
    if isinstance(node, Constant):
        # A literal without f is a double, which not every device has.
        return f"{node.value!r}f" if dtype == "float32" else repr(node.value)
    if isinstance(node, Name):
        return f"t_{node.id}[i]" if node.id in program.tensors else f"s_{node.id}"
    return _TEXT[node.op].format(*(_expression(argument, program, dtype) for argument in node.args))


