"""The language of element-wise programs: what it takes, how it is understood, and what it refuses."""

from __future__ import annotations

import pytest

from barista.ops.program import Call, Constant, Name, names, parse


def test_reads_writes_and_scalars() -> None:
    program = parse("h = momentum * h + rate * g\nw = w - h", ("w", "g", "h", "unused"))
    assert program.reads == ("h", "g", "w")
    assert program.writes == ("h", "w")
    assert program.scalars == ("momentum", "rate")
    assert program.tensors == ("h", "g", "w")


def test_written_before_it_is_read() -> None:
    program = parse("y = x * 2\nz = y + s", ("x", "y", "z"))
    assert program.reads == ("x",)
    assert program.writes == ("y", "z")
    assert program.tensors == ("x", "y", "z")


def test_tree() -> None:
    (target, tree), = parse("y = where(x > 0, -x, max(s, 1))", ("x", "y")).statements
    assert target == "y"
    assert tree == Call("where", (Call(">", (Name("x"), Constant(0.0))), Call("neg", (Name("x"),)),
                                  Call("max", (Name("s"), Constant(1.0)))))
    assert names(tree) == ["x", "x", "s"]


def test_precedence_is_that_of_python() -> None:
    (_, tree), = parse("y = a - b * c - d", ("y",)).statements
    product = Call("*", (Name("b"), Name("c")))
    assert tree == Call("-", (Call("-", (Name("a"), product)), Name("d")))


def test_layout_of_the_text_does_not_matter() -> None:
    assert parse("\n  y = (x +\n 1)\n".strip(), ("x", "y")).statements == parse("y = x + 1", ("x", "y")).statements


def test_the_same_text_is_parsed_once() -> None:
    assert parse("y = x + 3", ("x", "y")) is parse("y = x + 3", ("x", "y"))


@pytest.mark.parametrize(("source", "message"), [
    ("y", "programs are assignments"),
    ("y += x", "programs are assignments"),
    ("y = z = x", "programs are assignments"),
    ("y[0] = x", "programs are assignments"),
    ("s = x", "'s' is written but not declared a tensor"),
    ("y = x ** 2", r"cannot say 'x \*\* 2'"),
    ("y = x % 2", "cannot say 'x % 2'"),
    ("y = +x", r"cannot say '\+x'"),
    ("y = sin(x)", r"cannot say 'sin\(x\)'"),
    ("y = x.data", "cannot say"),
    ("y = 'text'", "cannot say"),
    ("y = x if s else 0", "cannot say"),
    ("y = where(0 < x < 1, 1, 0)", "cannot say"),
    ("y = exp(x, s)", "exp takes 1 arguments"),
    ("y = where(x > 0, x)", "where takes 3 arguments"),
    ("y = x > 0", "a comparison stands in the first argument of where, and there alone"),
    ("y = max(x > 0, 1)", "a comparison stands in the first argument of where"),
    ("y = where(x, 1, 0)", "a comparison stands in the first argument of where"),
    ("y = where(x > 0, x > 1, 0)", "a comparison stands in the first argument of where"),
])
def test_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(source, ("x", "y"))
