"""Reports of Vitis, as far as a manifest keeps them.

    csynth.xml                      what C synthesis estimates: clock, cycles, every loop, resources
    *kernel_util_routed.rpt         what the kernel takes of the card after linking (also _placed, _synthed)
    NAME.xclbin.info                what ``xclbinutil --info`` says of a binary: its kernels and the clock it runs at

Reports come from elsewhere: they are read as text of bounded size, and XML without any document type.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from ..errors import DataError
from ..hardware.report import (
    LINK_RESOURCES,
    MOST_LOOPS,
    STAGES,
    SYNTHESIS_RESOURCES,
    BuildReport,
    Link,
    Loop,
    Span,
    Synthesis,
)

# Reports of this package's kernels have some hundred KB; nothing larger is read.
LARGEST_BYTES = 32 * 2**20
# Elements that lie in one another, and files of a folder that is searched.
DEEPEST, MOST_FILES = 100, 200_000

# A count, or the least and the most of one. Anything else, such as "undef", is not known.
_COUNT = re.compile(r"(\d{1,18})(?:\s*~\s*(\d{1,18}))?")
# A child of a loop with one of these is a loop inside it.
_LOOP_MARKS = ("TripCount", "Latency", "IterationLatency", "PipelineII")
_LINK_NAME = re.compile(rf".*kernel_util_({'|'.join(STAGES)})\.rpt")
_INFO_SUFFIX = ".xclbin.info"
# A cell of the link report: ``585049 [ 56.28%]``.
_CELL = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(?:\[.*\])?")


class Files(NamedTuple):
    """The reports of one build; None is one that is not there."""

    synthesis: Path | None = None
    link: Path | None = None
    info: Path | None = None


class Info(NamedTuple):
    """What is said of a binary.

    Parameters
    ----------
    tool : what made it, ``v++ 2022.1``, or ''
    kernels : names of its kernels
    content : ``Bitstream``, ``HW Emulation Binary``, or ''
    clock_hz : of its kernels; None where it is not said
    """

    tool: str
    kernels: tuple[str, ...]
    content: str
    clock_hz: float | None

    @property
    def is_emulation(self) -> bool:
        """Whether the binary is no hardware."""
        return "emulation" in self.content.lower()


# ---- finding ----------------------------------------------------------------------------------------------

def find_reports(place: str | Path) -> Files:
    """Find the reports of a build: those that lie nearest below a folder; or take the one that is given.

    Raises
    ------
    DataError : nothing of that name, no report, or several that differ
    """
    path = Path(place)
    if not path.exists():
        raise DataError(f"{place}: there is no such file or folder; give a report of Vitis, or a folder with some")
    if not path.is_dir():
        kind = _kind(path.name)
        if kind is None:
            raise DataError(f"{place} is no report that is read here; give a csynth.xml, a *kernel_util_routed.rpt or "
                            f"a *{_INFO_SUFFIX}")
        return Files()._replace(**{kind[0]: path})
    found = seek_reports(path)
    if not any(found):
        raise DataError(f"{place} holds no report of Vitis: no csynth.xml, *kernel_util_routed.rpt or *{_INFO_SUFFIX}")
    return found


def seek_reports(folder: Path) -> Files:
    """Find the reports that lie nearest below a folder, if there are any.

    Raises
    ------
    DataError : several that are equally near, and differ
    """
    found: dict[str, list[tuple[tuple[int, int, str], Path]]] = {}
    for file in _files(folder):
        if (kind := _kind(file.name)) is not None:
            found.setdefault(kind[0], []).append(((kind[1], len(file.parts), str(file)), file))
    return Files(**{kind: _only(kind, sorted(files), folder) for kind, files in found.items()})


def _kind(name: str) -> tuple[str, int] | None:
    """Which field of `Files` a file belongs to by its name, and how good a one it is, the best 0."""
    if name == "csynth.xml" or name.endswith("_csynth.xml"):
        return "synthesis", int(name != "csynth.xml")
    if matched := _LINK_NAME.fullmatch(name):
        return "link", STAGES.index(matched[1])
    return ("info", 0) if name.endswith(_INFO_SUFFIX) else None


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        count += len(names)
        if count > MOST_FILES:
            raise DataError(f"{folder} holds more than {MOST_FILES:,} files; give the folder of the reports in it")
        for name in sorted(names):
            yield Path(place, name)


def _only(kind: str, files: list[tuple[tuple[int, int, str], Path]], folder: Path) -> Path:
    """The best of some files; of several that are equally good all must be the same."""
    best = [path for order, path in files if order[:2] == files[0][0][:2]]
    if len({hashlib.sha256(_read(path)).digest() for path in best}) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in best[:3])
        raise DataError(f"{folder} holds {len(best)} reports of {kind} that differ: {names}; give the folder of one "
                        "build, or one file")
    return best[0]


def read_report(files: Files, kernel: str = "") -> BuildReport:
    """Read the reports of a build.

    Parameters
    ----------
    kernel : whose share of the link report counts; '' takes that of all kernels

    Raises
    ------
    DataError : one that cannot be read
    """
    info = None if files.info is None else read_info(files.info)
    return BuildReport(None if files.synthesis is None else read_synthesis(files.synthesis),
                       None if files.link is None else read_link(files.link, kernel),
                       None if info is None or info.is_emulation else info.clock_hz)


# ---- C synthesis ------------------------------------------------------------------------------------------

def read_synthesis(path: Path) -> Synthesis:
    """Read a ``csynth.xml``.

    Raises
    ------
    DataError : it cannot be read, or is something else
    """
    root = parse_xml(_read(path), str(path))
    if root.tag != "profile" or root.find("AreaEstimates/Resources") is None:
        raise DataError(f"{path}: no report of C synthesis: its outermost element is {root.tag!r}, and a profile with "
                        "AreaEstimates is expected; give the csynth.xml that Vitis HLS wrote")
    top = _text(root, "UserAssignments/TopModelName")
    loops = list(_all_loops(root, top))
    if len(loops) > MOST_LOOPS:
        raise DataError(f"{path} lists {len(loops)} loops, more than the {MOST_LOOPS} that a manifest keeps; is it of "
                        "another kernel?")
    best, worst = (_span(root.find(f"PerformanceEstimates/SummaryOfOverallLatency/{which}-caseLatency"))
                   for which in ("Best", "Worst"))
    used, available = (_resources(root, name, path) for name in ("Resources", "AvailableResources"))
    target, estimated = (_hertz(_text(root, name)) for name in (
        "UserAssignments/TargetClockPeriod", "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"))
    return Synthesis(_text(root, "ReportVersion/Version"), top, _text(root, "UserAssignments/Part"), target, estimated,
                     None if best is None or worst is None or best.low > worst.high else Span(best.low, worst.high),
                     used, available, tuple(loops))


def _all_loops(root: ElementTree.Element, top: str) -> Iterator[Loop]:
    """The loops of the kernel and of every function in it.

    Older reports list the top function's beside the modules, newer ones a second time among them.
    """
    modules = [(_text(module, "Name"), module) for module in root.iterfind("ModuleInformation/Module")]
    if top not in (name for name, _ in modules):
        modules.insert(0, (top, root))
    seen = set()
    for name, module in modules:
        summary = module.find("PerformanceEstimates/SummaryOfLoopLatency")
        for loop in _loops(summary, name, ()):
            if loop not in seen:
                seen.add(loop)
                yield loop


def _loops(parent: ElementTree.Element | None, module: str, outer: tuple[str, ...]) -> Iterator[Loop]:
    for element in () if parent is None else parent:
        if not any(element.find(mark) is not None for mark in _LOOP_MARKS):
            continue
        names = (*outer, _text(element, "Name") or element.tag)
        interval, depth = _span(element.find("PipelineII")), _span(element.find("PipelineDepth"))
        yield Loop(module, ".".join(names), _span(element.find("TripCount")), None if interval is None else
                   interval.high, _span(element.find("Latency")), None if depth is None else depth.high)
        yield from _loops(element, module, names)


def _resources(root: ElementTree.Element, name: str, path: Path) -> dict[str, int]:
    counts = {}
    for resource in SYNTHESIS_RESOURCES:
        text = _text(root, f"AreaEstimates/{name}/{resource}")
        if not text and resource == "DSP":  # before 2020
            text = _text(root, f"AreaEstimates/{name}/DSP48E")
        if text:
            matched = _COUNT.fullmatch(text)
            if matched is None:
                raise DataError(f"{path}: {name} has {text!r} of {resource}, no count; run C synthesis again")
            counts[resource] = int(matched[1])
    return counts


def _span(element: ElementTree.Element | None) -> Span | None:
    """A count, ``<X>3</X>``, or a span, ``<X><range><min>1</min><max>3</max></range></X>`` or ``<X>1 ~ 3</X>``."""
    if element is None:
        return None
    ends = [_text(element, f"range/{end}") for end in ("min", "max")]
    matched = _COUNT.fullmatch(" ~ ".join(ends) if all(ends) else (element.text or "").strip())
    if matched is None:
        return None
    low, high = int(matched[1]), int(matched[2] or matched[1])
    return Span(low, high) if low <= high else None


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _hertz(period_ns: str) -> float | None:
    """The clock of a period."""
    matched = re.fullmatch(r"\d{1,9}(\.\d{1,9})?", period_ns)
    return 1e9 / float(period_ns) if matched is not None and float(period_ns) > 0 else None


# ---- link -------------------------------------------------------------------------------------------------

def read_link(path: Path, kernel: str = "") -> Link:
    """Read a link report's table of resources.

    Parameters
    ----------
    kernel : whose row counts; '', or one that has no row, takes that of all kernels

    Raises
    ------
    DataError : it cannot be read, or has no such table
    """
    matched = _LINK_NAME.fullmatch(path.name)
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in _decoded(path).splitlines() if line.lstrip().startswith("|")]
    heads = [row for row in rows if row[0] == "Name"]
    table = {row[0]: row for row in rows}
    used = table.get(kernel) or table.get("Used Resources")
    budget = table.get("User Budget")
    if matched is None or not heads or used is None or budget is None:
        raise DataError(f"{path}: no link report: rows 'Name', 'User Budget' and 'Used Resources' of a table are "
                        "expected; give the *kernel_util_routed.rpt that v++ --link wrote, whole")
    return Link(matched[1], *(_amounts(heads[0], row, path) for row in (used, budget)))


def _amounts(head: list[str], row: list[str], path: Path) -> dict[str, float]:
    if len(row) != len(head):
        raise DataError(f"{path}: the row {row[0]!r} has {len(row)} cells, the table {len(head)} columns; the report "
                        "may have been cut off: copy it again")
    amounts = {}
    for name, cell in zip(head, row, strict=True):
        if name in LINK_RESOURCES:
            matched = _CELL.fullmatch(cell)
            if matched is None:
                raise DataError(f"{path}: the row {row[0]!r} has {cell!r} of {name}, no count; copy the report again")
            amounts[name] = float(matched[1])
    return amounts


# ---- the binary's own report ------------------------------------------------------------------------------

def read_info(path: Path) -> Info:
    """Read what ``xclbinutil --info`` said of a binary.

    Raises
    ------
    DataError : it cannot be read, or is something else
    """
    text = _decoded(path)
    if "xclbin" not in text.lower() or not re.search(r"^\s*Kernels?:", text, re.MULTILINE):
        raise DataError(f"{path}: no report of a binary: a line 'Kernels:' is expected; write it again: "
                        f"xclbinutil --info --input FILE.xclbin > {path.name}")
    tool = re.search(r"^\s*Generated by:\s+(\S+)\s+\(([\w.]+)\)", text, re.MULTILINE)
    kernels = re.search(r"^\s*Kernels?:[ \t]+(.*)$", text, re.MULTILINE)
    content = re.search(r"^\s*Content:[ \t]+(.*)$", text, re.MULTILINE)
    return Info("" if tool is None else f"{tool[1]} {tool[2]}",
                tuple(re.findall(r"(?<![<\w])\w+", kernels[1] if kernels is not None else "")),
                "" if content is None else content[1].strip(), _clock_hz(text))


def _clock_hz(text: str) -> float | None:
    """The frequency of the clock of type DATA, which drives kernels."""
    clocks = re.findall(r"^[ \t]*Type:[ \t]+(\S+)[ \t]*\n[ \t]*Frequency:[ \t]+(\d{1,6}(?:\.\d{1,6})?) MHz", text,
                        re.MULTILINE)
    return next((1e6 * float(frequency) for kind, frequency in clocks if kind == "DATA" and float(frequency) > 0), None)


# ---- files ------------------------------------------------------------------------------------------------

def parse_xml(content: bytes, where: str) -> ElementTree.Element:
    """Parse XML of strangers: no document type, and so no entities of its own.

    Raises
    ------
    DataError : it is not XML, has a document type, or its elements lie too deep in one another
    """
    builder, parser, depth = ElementTree.TreeBuilder(), expat.ParserCreate(), 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{where}: elements lie {depth} deep in one another; a report has less than {DEEPEST}")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(f"{where} declares a document type, which a report of Vitis does not; it is not read")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: no XML: {error}; it may have been cut off: copy it again") from None
    return builder.close()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; see to its rights or copy it again") from None
    if len(content) > LARGEST_BYTES:
        raise DataError(f"{path} has more than {LARGEST_BYTES // 2**20} MiB, which no report has; is it another file?")
    if not content.strip():
        raise DataError(f"{path} is empty; copy it again")
    return content


def _decoded(path: Path) -> str:
    return _read(path).decode("utf-8", errors="replace")
