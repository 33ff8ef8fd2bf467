"""Run ONNX's own backend tests against Barista and ONNX Runtime, and write what passes into docs/onnx.md.

Usage: ``python tools/onnx_report.py [--print]``.  The part of the page between its two marks is replaced; with
``--print`` it is printed instead.  Needs the packages onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import re
import sys
import tempfile
import unittest
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.loader import load_model_tests

from barista.frontends.onnx import backend as barista_backend
from barista.frontends.onnx.converter import HANDLERS
from barista.frontends.onnx.ops_activation import NUMBERS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "onnx.md"
BEGIN, END = "<!-- made by tools/onnx_report.py -->\n", "<!-- end of what tools/onnx_report.py makes -->\n"

# The operators that are promised: those with a handler, and Shape, which is known before a net runs.
OPERATORS = frozenset((*HANDLERS, "Shape"))

# The sets of ONNX's runner, and how the page calls them.
SETS = {"OnnxBackendRealModelTest": "light models", "OnnxBackendPyTorchConvertedModelTest": "PyTorch-converted models",
        "OnnxBackendPyTorchOperatorModelTest": "PyTorch-operator models", "OnnxBackendSimpleModelTest": "simple models"}

# What messages of ours say, and the reason that the page gives.
REASONS = {
    r"does not know the type|is of type (?!object)":
        "types other than floating point of 16, 32 and 64 bits, integers of 8 to 64 bits, and bool",
    r"trained|training mode": "outputs of training mode",
    r"no tensor of numbers|no sequences|is of type object": "sequences, optional values and strings",
    r"no layer says this operator": "operators that are not among those that are read",
}


class _Runtime(BackendRep):
    """A session of ONNX Runtime as the tests want it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                                     providers=["CPUExecutionProvider"])

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Compute the outputs."""
        names = [info.name for info in self._session.get_inputs()]
        return tuple(self._session.run(None, dict(zip(names, inputs, strict=False))))


class RuntimeBackend(Backend):
    """ONNX Runtime as a backend, without the checks of its own that refuse newer opsets."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> _Runtime:
        """Make a session."""
        return _Runtime(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether the tests for a device run."""
        return device == "CPU"


def run(backend: Any) -> dict[str, dict[str, str]]:
    """Run all tests.

    Returns
    -------
    for each of the runner's sets: the names of its cases to the message of what failed, '' where nothing did
    """
    results: dict[str, dict[str, str]] = {}
    for name, case in onnx.backend.test.BackendTest(backend).test_cases.items():
        found = results[name] = {}
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            assert isinstance(test, unittest.TestCase)
            method = test.id().rsplit(".", 1)[1]
            if not method.endswith("_cpu"):
                continue
            outcome = unittest.TestResult()
            with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
                test.run(outcome)
            failed = [text for _, text in (*outcome.errors, *outcome.failures)] + [why for _, why in outcome.skipped]
            found[method.removesuffix("_cpu")] = failed[0] if failed else ""
    return results


def operators() -> dict[str, str]:
    """The node cases of promised operators that consist of one node: their names to the operator."""
    return {case.name: case.model.graph.node[0].op_type for case in load_model_tests(kind="node")
            if case.model is not None and len(case.model.graph.node) == 1
            and case.model.graph.node[0].op_type in OPERATORS}


def numeric() -> set[str]:
    """The node cases whose inputs and outputs have types of NumPy's own alone."""
    return {case.name for case in load_model_tests(kind="node") if case.model is not None and all(
        info.type.HasField("tensor_type") and _type(info) in NUMBERS
        for info in (*case.model.graph.input, *case.model.graph.output))}


def _type(info: onnx.ValueInfoProto) -> str:
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)).name
    except KeyError:
        return ""


def reason(message: str) -> str:
    """Why a case failed: one of `REASONS`, or the last line of the message."""
    said = re.split(r"\n(?=[\w.]+(?:Error|Exception)\b)", message)[-1].strip()  # without the lines of source before it
    for pattern, why in REASONS.items():
        if re.search(pattern, said):
            return why
    return said.splitlines()[-1]


def report(ours: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]) -> str:
    """The tables of the page."""
    nodes, numbers = operators(), numeric()
    mine, other = ours["OnnxBackendNodeModelTest"], theirs["OnnxBackendNodeModelTest"]
    opset = onnx.defs.onnx_opset_version()
    lines = [f"onnx {onnx.__version__} (opset {opset}), ONNX Runtime {onnxruntime.__version__}, on the processor.", "",
             "| cases | Barista | ONNX Runtime |", "| --- | --- | --- |"]
    groups = {"node cases, floating point, integer and bool": [n for n in nodes if n in numbers],
              "node cases, other types": [n for n in nodes if n not in numbers]}
    for what, names in groups.items():
        lines.append(_row(what, *(f"{_passed(found, names)} of {len(names)}" for found in (mine, other))))
    for name, what in SETS.items():
        total = len(ours[name])
        lines.append(_row(what, *(f"{_passed(found[name], ours[name])} of {total}" for found in (ours, theirs))))
    lines += ["", "| operator | node cases | Barista | ONNX Runtime |", "| --- | --- | --- | --- |"]
    for operator in sorted(set(nodes.values())):
        names = [name for name, op in nodes.items() if op == operator]
        lines.append(_row(operator, str(len(names)), str(_passed(mine, names)), str(_passed(other, names))))
    failures = collections.defaultdict(list)
    for name in nodes:
        if mine[name]:
            failures[reason(mine[name])].append(name)
    for group in SETS:
        for name, message in ours[group].items():
            if message:
                failures[reason(message)].append(name)
    lines += ["", "| does not pass | why |", "| --- | --- |"]
    for why, names in sorted(failures.items()):
        lines.append(_row(", ".join(_shortened(sorted(names))), why))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _passed(found: Mapping[str, str], names: Any) -> int:
    return sum(not found[name] for name in names)


def _shortened(names: list[str]) -> list[str]:
    """Names without what all have in front; those of one kind counted."""
    bare = [name.removeprefix("test_") for name in names]
    kinds = collections.Counter(name.split("_")[0] for name in bare)
    many = {kind for kind, count in kinds.items() if count > 6}
    return [f"{kinds[kind]} of `{kind}_*`" for kind in sorted(many)] + [
        f"`{name}`" for name in bare if name.split("_")[0] not in many]


def main() -> int:
    """Run both, and write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--print", action="store_true", help="print the tables, and leave the page as it is")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="barista-onnx-") as folder:
        os.environ["ONNX_HOME"] = folder
        text = report(run(barista_backend), run(RuntimeBackend))
    if options.print:
        print(text, end="")
        return 0
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, last, after = rest.partition(END)
    if not mark or not last:
        raise SystemExit(f"{PAGE}: expected the marks {BEGIN.strip()!r} and {END.strip()!r}")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
