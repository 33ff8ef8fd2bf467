"""The plan of the house, read from the source: which way imports go, where packages come in, docstrings, sizes."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import barista
from barista.ops.base import OpSet

ROOT = Path(barista.__file__).parent
CHECKOUT = Path(__file__).parent.parent
GENERATED = ("proto.caffe_pb2", "proto.caffe2_pb2")


@functools.cache
def modules() -> dict[str, Path]:
    """Module name without the leading ``barista.`` ('' for the package itself) to its file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _statements(node: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """Import statements; those inside functions only where `everywhere`, those for type checkers never."""
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(child, everywhere)


@functools.cache
def imports(module: str, everywhere: bool = True) -> frozenset[str]:
    """What a module imports: modules of barista as ``barista.name``, others by their full names."""
    names = set()
    package = module.split(".") if modules()[module].name == "__init__.py" else module.split(".")[:-1]
    package = ["barista", *(part for part in package if part)]
    for node in _statements(tree(module), everywhere):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
            continue
        assert isinstance(node, ast.ImportFrom)
        base = package[:len(package) - node.level + 1] if node.level else []
        stem = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{stem}.{alias.name}"
            names.add(whole if whole.removeprefix("barista.") in modules() else stem)
    return frozenset(names)


def inner(module: str, everywhere: bool = True) -> set[str]:
    """The modules of barista that a module imports, without the leading ``barista.``."""
    return {"" if name == "barista" else name.removeprefix("barista.") for name in imports(module, everywhere)
            if name == "barista" or name.startswith("barista.")}


def under(name: str, *places: str) -> bool:
    """Whether a module is one of `places` or lies below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


# ---- directions -------------------------------------------------------------------------------------------

# Part of the package -> what it may import besides its own part and `errors`. The first line that fits counts.
DIRECTIONS = {
    "errors": [],
    "precision": [],
    "gemm.shapes": [],
    "gemm": ["precision"],
    "blob": [],
    "rng": [],
    "resources": [],
    "glog": [],
    "files": [],
    "fillers": ["proto"],
    "proto": [],
    "frontends.onnx.backend": ["frontends.onnx", "compose", "net", "proto"],
    "frontends": ["proto"],
    "data": ["proto", "rng"],
    "hdf5": ["files", "proto"],
    "weights": ["files", "hdf5", "frontends", "proto"],
    "ops.base": ["ops.primitives", "ops.geometry", "ops.workspace", "ops.tuned", "blob", "gemm"],
    "ops.primitives": ["blob", "gemm"],
    "ops.geometry": [],
    "ops.workspace": ["gemm"],
    "ops.tuned": ["gemm"],
    "ops.program": [],
    "ops.hosted": ["ops.base", "blob", "gemm"],
    "ops.columns": ["gemm"],
    "ops.verify": ["ops.base", "ops.hosted", "blob", "gemm"],
    "ops.scheduled": ["ops.base", "ops.hosted", "blob", "gemm", "schedule"],
    "ops.cpu": ["ops.base", "ops.program", "ops.columns", "blob", "gemm"],
    "ops.fpga": ["ops.base", "ops.hosted", "ops.scheduled", "ops.columns", "blob", "gemm", "precision", "schedule",
                 "hardware", "runtime", "synthesis", "resources"],
    "ops.opencl": ["ops.base", "ops.tuned", "ops.program", "ops.hosted", "blob", "gemm", "runtime", "resources",
                   "schedule"],
    "ops": [],
    "hardware": ["gemm", "precision"],
    "runtime": ["blob", "", "gemm", "precision", "hardware", "resources"],
    "python_layer": ["blob", "proto"],
    "pycaffe": ["compose"],
    "alias": [],
    "named": ["blob"],
    "layers": ["ops.base", "blob", "gemm", "fillers", "proto", "rng", "data", "python_layer", "net_spec"],
    "net_graph": ["proto"],
    "net_spec": ["proto"],
    "coord_map": ["net_spec"],
    "io": ["data", "proto"],
    "classifier": ["io", "net", "proto"],
    "detector": ["classifier", "io", "net", "proto"],
    "graph_layout": [],
    "finetune": ["proto"],
    "draw": ["files", "graph_layout", "proto"],
    "net_params": ["layers", "blob", "named", "proto"],
    "net_pycaffe": ["layers", "named", "ops.base", "blob", "hdf5", "proto"],
    "memory_plan": ["layers", "blob"],
    "net": ["net_graph", "net_params", "net_pycaffe", "named", "memory_plan", "layers", "ops.base", "gemm.shapes",
            "blob", "rng", "compose", "proto", "frontends", "weights"],
    "latency": ["hardware", "gemm", "precision", "resources"],
    "schedule": ["gemm", "latency", "hardware", "precision"],
    "synthesis": ["", "gemm", "precision", "hardware", "latency", "schedule", "resources", "files"],
    "compose": ["ops.base", "ops.cpu", "ops.opencl", "ops.fpga", "ops.verify", "ops.scheduled", "schedule"],
    "solvers": ["net", "layers", "ops.base", "blob", "rng", "proto", "frontends", "files", "hdf5", "weights"],
    "cli": ["", "solvers", "net", "data", "frontends", "proto", "compose", "ops.base", "ops.tuned", "rng", "glog",
            "resources", "runtime.devices", "runtime.context", "runtime.icd", "runtime.bitstream_build",
            "runtime.bitstream_program", "hardware", "gemm", "precision", "blob", "latency", "schedule", "synthesis",
            "layers", "net_graph", "memory_plan", "files", "python_layer", "draw", "weights", "finetune"],
    "__main__": ["cli"],
    "": ["net", "net_spec", "layers", "python_layer", "pycaffe", "solvers", "compose", "rng", "glog", "proto", "io",
         "classifier", "detector", "coord_map", "draw", "alias"],
}


def part_of(module: str) -> str:
    """The line of the table that a module falls under."""
    fitting = [part for part in DIRECTIONS if part and under(module, part)]
    return max(fitting, key=len) if fitting else ""


def test_every_part_has_a_line() -> None:
    """A new module at the top needs a decision about what it may import."""
    assert {module for module in modules() if part_of(module) == ""} == {""}
    assert all(any(part_of(module) == part for module in modules()) for part in DIRECTIONS)


@pytest.mark.parametrize("module", modules())
def test_direction(module: str) -> None:
    part = part_of(module)
    allowed = (*DIRECTIONS[part], "errors", *([part] if part else []))
    wrong = {name for name in inner(module)
             if not (under(name, *(place for place in allowed if place)) or (name == "" and "" in allowed))}
    assert not wrong, f"barista.{module} imports {sorted(wrong)}; {part!r} may import {sorted(allowed)}"


def test_only_the_composition_names_backends() -> None:
    for module in modules():
        if part_of(module) not in ("compose", "ops.cpu", "ops.opencl", "ops.fpga"):
            assert not {name for name in inner(module) if under(name, "ops.cpu", "ops.opencl", "ops.fpga")}, module


def test_layers_and_net_know_no_device() -> None:
    """Nor do they compute with NumPy: layers hold shapes and the order of operations."""
    for module in modules():
        if part_of(module) in ("layers", "net", "net_graph"):
            assert not {name for name in imports(module) if under(name, "pyopencl", "barista.runtime",
                                                                  "barista.ops.cpu", "barista.ops.opencl",
                                                                  "barista.ops.fpga")}, module
        if part_of(module) == "layers":
            calls = {node.attr for node in ast.walk(tree(module))
                     if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"}
            assert calls <= {"random"}, f"{module} uses numpy: {calls}"


def test_planning_is_pure() -> None:
    """Shapes need neither numbers nor devices; planners search with NumPy and need no device."""
    pure = {"__future__", "dataclasses", "enum", "math", "collections", "typing", "barista", "json", "os", "pathlib",
            "copy", "functools", "heapq", "itertools", "re"}
    for module in modules():
        if part_of(module) in ("gemm.shapes", "schedule"):
            allowed = pure | ({"numpy"} if part_of(module) == "schedule" else set())
            assert {name.split(".")[0] for name in imports(module)} <= allowed, module


def test_no_cycles_when_imported() -> None:
    """Imports at the top of modules, a package standing for its __init__ too."""
    graph = {module: inner(module, everywhere=False) - {module} for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


# ---- packages from elsewhere ------------------------------------------------------------------------------

# Each heavy or optional package, and the only modules that may import it.
PLACES = {
    "pyopencl": {"runtime.driver"},
    "h5py": {"hdf5", "data.hdf5_data"},
    "lmdb": {"data.lmdb"},
    "plyvel": {"data.leveldb"},
    "PIL": {"data.images"},
    "sklearn": {"data.digits"},
    "numba": {"latency.simulator.compiled"},
    "matplotlib": {"cli.plot", "cli.report", "draw"},
    "threadpoolctl": {"ops.cpu.threads", "cli.device_query"},
    "tqdm": {"cli.progress", "data.convert", "data.filling", "data.mean", "glog", "ops.opencl.choice"},
}
OPTIONAL = ("pyopencl", "h5py", "plyvel", "sklearn", "matplotlib", "numba", "onnx")
STANDARD = {"numpy", "google"}


def outer(module: str, everywhere: bool = True) -> set[str]:
    """Packages that are neither barista nor Python's own."""
    import sys

    names = {name.split(".")[0] for name in imports(module, everywhere)}
    return names - set(sys.stdlib_module_names) - {"barista"}


PLACES["onnx"] = {module for module in modules() if under(module, "frontends.onnx", "frontends.caffe2")
                  and "onnx" in outer(module)}


@pytest.mark.parametrize("package", PLACES)
def test_imported_in_its_place(package: str) -> None:
    assert {module for module in modules() if package in outer(module)} == PLACES[package]


def test_no_other_packages() -> None:
    assert set().union(*(outer(module) for module in modules())) == STANDARD | set(PLACES)


@pytest.mark.parametrize("start", ["", "net", "solvers", "data", "cli.main"])
def test_optional_packages_are_imported_when_needed(start: str) -> None:
    """What is imported at the top, and what that imports, does without the extras."""
    reached, ahead = set(), [start]
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            parents = [module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)]
            ahead += [*inner(module, everywhere=False), *parents]
    assert not {module for module in reached if outer(module, everywhere=False) & set(OPTIONAL)}


def test_protobuf_stays_in_its_parts() -> None:
    """Messages are made, read and written in a few places; everything else only passes them on."""
    for module in modules():
        if "google" in outer(module):
            assert part_of(module) in ("proto", "frontends", "data", "files", "io", "solvers"), module


# ---- the text ---------------------------------------------------------------------------------------------


def _documented(module: str) -> Iterator[tuple[str, object]]:
    """Public classes and functions that a module defines, and the classes' public methods and properties."""
    loaded = importlib.import_module(f"barista.{module}".rstrip("."))
    for name, thing in vars(loaded).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != loaded.__name__:
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing
        if inspect.isclass(thing):
            for method, member in vars(thing).items():
                if method.startswith("_") or (inspect.isfunction(member) and member.__name__ != method):
                    continue  # private, or the default of a dataclass field
                if inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod):
                    yield f"{name}.{method}", getattr(thing, method)


# The factory methods of an op set: the class of the primitive that each makes says what it does.
FACTORIES = {name for name in OpSet.__abstractmethods__ if not name.startswith("_")}


@pytest.mark.parametrize("module", [m for m in modules() if m not in (*GENERATED, "__main__")])
def test_docstrings(module: str) -> None:
    """Methods may inherit theirs."""
    assert ast.get_docstring(tree(module)) or modules()[module].stat().st_size == 0, f"barista.{module} has none"
    missing = [name for name, thing in _documented(module)
               if not inspect.getdoc(thing) and name.rpartition(".")[2] not in FACTORIES]
    assert not missing, f"barista.{module}: {missing}"


@pytest.mark.parametrize("module", [m for m in modules() if m not in GENERATED])
def test_size(module: str) -> None:
    lines = modules()[module].read_text(encoding="utf-8").count("\n")
    assert lines <= 500, f"barista.{module} has {lines} lines; cut it where it holds two concerns"


@pytest.mark.parametrize("module", [m for m in modules() if not under(m, "cli", "__main__")])
def test_library_neither_prints_nor_exits(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "exit", "quit", "sys.exit", "os._exit"), f"barista.{module}:{node.lineno}"


@pytest.mark.parametrize("module", modules())
def test_errors_are_ours(module: str) -> None:
    """No bare `except:`, and no catching of everything that is then forgotten."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"barista.{module}:{node.lineno} has a bare except"
            swallowed = all(isinstance(item, ast.Pass) for item in node.body)
            assert not (swallowed and ast.unparse(node.type) in ("Exception", "BaseException")), \
                f"barista.{module}:{node.lineno} swallows all errors"


# Folders and files of the checkout that are text of ours.
TEXTS = ("barista", "docs", "examples", "hls", "opencl_kernels", "prototxt", "tools", "tests", "benchmarks",
         "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "setup.cfg", "ruff.toml", "pyproject.toml")
SUFFIXES = {".py", ".md", ".cl", ".cpp", ".h", ".prototxt", ".proto", ".toml", ".cfg", ".txt", ".pyi", ""}
# Paths of somebody's machine, and marks of unfinished work; written so that this file does not hold them.
BANNED = [r"/(?:work|home|root|Users)/\w", r"/t" r"mp/\w", r"\bTO" r"DO\b", r"\bFIX" r"ME\b", r"\bX" r"XX\b"]


def test_no_banned_words() -> None:
    banned = re.compile("|".join(BANNED))
    hits = []
    for place in TEXTS:
        start = CHECKOUT / place
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if not path.is_file() or path.suffix not in SUFFIXES or "__pycache__" in path.parts:
                continue
            if path.is_relative_to(CHECKOUT / "tests" / "golden"):
                continue  # figures of Caffe, with the paths of the machine that computed them
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            hits += [f"{path.relative_to(CHECKOUT)}:{text.count(chr(10), 0, found.start()) + 1}: {found.group()}"
                     for found in banned.finditer(text)]
    assert not hits
