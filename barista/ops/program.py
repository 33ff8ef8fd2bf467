"""Element-wise programs: one neutral form that every op set compiles for itself.

A program is one or more assignments in Python's expression syntax::

    y = max(x, 0) + slope * min(x, 0)

    h = momentum * h + rate * g
    w = w - h

Assigned names are written.  A name is a *tensor* where it is declared as one and
a *scalar* (given anew at each run) otherwise.  All tensors of a run have the same
count of elements; statement after statement runs on one element before the next
element is touched, so a tensor may be read and written.  Two names may lie on the
same memory where one of them alone is written, and the other is not read by a later
statement than the one that writes: an op set may keep elements in registers.

Functions: ``exp log sqrt tanh abs sign floor erf pow max min where``.  Comparisons stand
in the first argument of ``where`` alone.
"""

from __future__ import annotations

import ast
import dataclasses
import functools

FUNCTIONS = {"exp": 1, "log": 1, "sqrt": 1, "tanh": 1, "abs": 1, "sign": 1, "floor": 1, "erf": 1,
             "pow": 2, "max": 2, "min": 2, "where": 3}

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.USub: "-",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A tensor or a scalar."""

    id: str


@dataclasses.dataclass(frozen=True)
class Constant:
    """A literal number."""

    value: float


@dataclasses.dataclass(frozen=True)
class Call:
    """An operator or function applied to arguments; `op` is ``+``, ``<``, ``exp``, ...; ``neg`` is unary minus."""

    op: str
    args: tuple[Node, ...]


Node = Name | Constant | Call


@dataclasses.dataclass(frozen=True)
class Program:
    """A parsed program.

    Attributes
    ----------
    statements : (target, expression) in order
    reads, writes : tensors read before they are written, and tensors written
    scalars : names that are given as numbers at each run
    source : the text
    """

    statements: tuple[tuple[str, Node], ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    scalars: tuple[str, ...]
    source: str

    @functools.cached_property
    def tensors(self) -> tuple[str, ...]:
        """All tensors, those read first in the order of their first use."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    @property
    def accesses(self) -> list[tuple[str, str]]:
        """What to ask of each tensor for its array: ``read``, ``update``, or ``write`` of one that is not read.

        Those read come first: of two names on one memory the contents are moved before one is overwritten.
        """
        return [(name, "read" if name not in self.writes else "update" if name in self.reads else "write")
                for name in self.tensors]


def _node(tree: ast.expr, source: str, condition: bool = False) -> Node:
    if isinstance(tree, ast.Compare) != condition:
        raise ValueError(f"a comparison stands in the first argument of where, and there alone (in {source!r})")
    if isinstance(tree, ast.Name):
        return Name(tree.id)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float):
        return Constant(float(tree.value))
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        return Call(OPERATORS[type(tree.op)], (_node(tree.left, source), _node(tree.right, source)))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return Call("neg", (_node(tree.operand, source),))
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in OPERATORS:
        return Call(OPERATORS[type(tree.ops[0])], (_node(tree.left, source), _node(tree.comparators[0], source)))
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in FUNCTIONS:
        if len(tree.args) != FUNCTIONS[tree.func.id]:
            raise ValueError(f"{tree.func.id} takes {FUNCTIONS[tree.func.id]} arguments in {source!r}")
        return Call(tree.func.id, tuple(_node(a, source, condition=tree.func.id == "where" and index == 0)
                                        for index, a in enumerate(tree.args)))
    raise ValueError(f"element-wise programs cannot say {ast.unparse(tree)!r} (in {source!r})")


def names(node: Node) -> list[str]:
    """The names in an expression, in order of use, with repetitions."""
    if isinstance(node, Name):
        return [node.id]
    if isinstance(node, Call):
        return [n for arg in node.args for n in names(arg)]
    return []


@functools.cache
def parse(source: str, tensors: tuple[str, ...]) -> Program:
    """Parse a program; names in `tensors` are tensors (not all need occur), all others scalars.

    Raises
    ------
    ValueError : the text is not a program, or writes a scalar (a mistake of ours, never of a user's)
    """
    statements: list[tuple[str, Node]] = []
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    scalars: dict[str, None] = {}
    for line in ast.parse(source.strip()).body:
        if not (isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)):
            raise ValueError(f"element-wise programs are assignments; got {ast.unparse(line)!r}")
        expression = _node(line.value, source)
        for name in names(expression):
            if name not in tensors:
                scalars[name] = None
            elif name not in writes:
                reads[name] = None
        target = line.targets[0].id
        if target not in tensors:
            raise ValueError(f"{target!r} is written but not declared a tensor in {source!r}")
        writes[target] = None
        statements.append((target, expression))
    return Program(tuple(statements), tuple(reads), tuple(writes), tuple(scalars), source)
