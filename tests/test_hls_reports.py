"""Reports of Vitis: what is read, what is refused, and how manifests keep it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import vitis_reports

from barista.errors import BitstreamError, DataError
from barista.gemm.tiles import TileSizes
from barista.hardware import bitstream as bitstreams
from barista.hardware.bitstream import Bitstream
from barista.hardware.board import load_board
from barista.hardware.report import BuildReport, Span, report_from_json
from barista.synthesis.report_tables import describe_report
from barista.synthesis.reports import (
    DEEPEST,
    LARGEST_BYTES,
    Files,
    find_reports,
    parse_xml,
    read_info,
    read_link,
    read_report,
    read_synthesis,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The three reports of a build, where `make hw` leaves them."""
    place = tmp_path / "build" / "reports" / "link" / "imp"
    place.mkdir(parents=True)
    found = Files(tmp_path / "build" / "reports" / "csynth.xml", place / "impl_1_kernel_util_routed.rpt",
                  tmp_path / "build" / "mine.xclbin.info")
    for path, text in zip(found, (vitis_reports.CSYNTH, vitis_reports.KERNEL_UTIL, vitis_reports.info()), strict=True):
        assert path is not None
        path.write_text(text)
    return found


@pytest.fixture
def card(tmp_path: Path) -> Bitstream:
    return bitstreams.write(tmp_path / "lib", b"xclbin2\0", TileSizes(16, 16, 64), "fp32", load_board("u250"),
                            kernel=vitis_reports.KERNEL, suffix=".xclbin")


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_hls_report", ROOT / "tools" / "read_hls_report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what is read -----------------------------------------------------------------------------------------

def test_c_synthesis(files: Files) -> None:
    assert files.synthesis is not None
    found = read_synthesis(files.synthesis)
    assert (found.tool, found.top, found.part) == ("2022.1", "barista_gemm", "xcu250-figd2104-2L-e")
    assert (found.target_hz, found.estimated_hz) == (250e6, pytest.approx(312.5e6))
    assert found.latency_cycles == Span(120, 98765)
    assert found.used == {"BRAM_18K": 96, "DSP": 1280, "FF": 210000, "LUT": 150000, "URAM": 0}
    assert found.available["URAM"] == 1280
    loops = {loop.name: loop for loop in found.loops}
    assert list(loops) == ["products", "products.steps", "write"]
    outer, steps, write = loops.values()
    assert (outer.module, outer.trips, outer.latency_cycles) == ("mesh", Span(1, 40), Span(94, 3760))
    assert (outer.interval_cycles, outer.depth_cycles) == (None, None)
    assert (steps.trips, steps.interval_cycles, steps.depth_cycles) == (Span(94, 94), 1, 13)
    assert (write.trips, write.latency_cycles, write.interval_cycles) == (None, Span(12, 340), 2)


def test_loops_of_the_top_function_count_once(tmp_path: Path) -> None:
    """Beside the modules in older reports; in newer ones among them."""
    loops = ("<SummaryOfLoopLatency><read><TripCount>7</TripCount><Latency>9</Latency><PipelineII>1</PipelineII></read>"
             "</SummaryOfLoopLatency>")
    beside = vitis_reports.CSYNTH.replace("    </SummaryOfOverallLatency>", f"    </SummaryOfOverallLatency>{loops}", 1)
    both = beside.replace("  <ModuleInformation>", "  <ModuleInformation><Module><Name>barista_gemm</Name>"
                          f"<PerformanceEstimates>{loops}</PerformanceEstimates></Module>")
    for text in (beside, both):
        (tmp_path / "csynth.xml").write_text(text)
        found = read_synthesis(tmp_path / "csynth.xml").loops
        assert [loop.name for loop in found] == ["read", "products", "products.steps", "write"]
        assert found[0].module == "barista_gemm"


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    text = vitis_reports.CSYNTH.replace("<Worst-caseLatency>98765", "<Worst-caseLatency>undef").replace("3.2<", "?<")
    (tmp_path / "csynth.xml").write_text(text)
    found = read_synthesis(tmp_path / "csynth.xml")
    assert (found.latency_cycles, found.estimated_hz) == (None, None)
    assert "latency as its arguments say" in "\n".join(describe_report(BuildReport(found)))


def test_the_link_report(files: Files) -> None:
    assert files.link is not None
    link = read_link(files.link, "barista_gemm")
    assert link.stage == "routed"
    assert link.used == {"LUT": 160000, "LUTAsMem": 18000, "REG": 230000, "BRAM": 48.5, "DSP": 1280}
    assert link.budget["BRAM"] == 2560
    assert read_link(files.link).used["DSP"] == read_link(files.link, "another").used["DSP"] == 1290


def test_the_binary_s_report(files: Files) -> None:
    assert files.info is not None
    found = read_info(files.info)
    assert found == ("v++ 2022.1", ("barista_gemm",), "Bitstream", 231e6)
    assert not found.is_emulation
    files.info.write_text(vitis_reports.info("HW Emulation Binary").partition("Scalable")[0])
    found = read_info(files.info)
    assert (found.is_emulation, found.clock_hz) == (True, None)
    files.info.write_text(vitis_reports.info("HW Emulation Binary"))
    assert read_report(Files(info=files.info)).clock_hz is None, "an emulation has no clock of its own"
    files.info.write_text(vitis_reports.info(kernel="<unknown>"))
    assert read_info(files.info).kernels == ()


def test_reports_are_found_below_a_folder(files: Files, tmp_path: Path) -> None:
    assert find_reports(tmp_path) == files
    for file in files:
        assert file is not None
        assert [found for found in find_reports(file) if found] == [file]
    deep = tmp_path / "build" / "_x" / "gemm" / "solution" / "syn" / "report"
    deep.mkdir(parents=True)
    (deep / "csynth.xml").write_text("of a module, or of an earlier run")
    (tmp_path / "build" / "mesh_csynth.xml").write_text("of a module")
    (tmp_path / "build" / "impl_1_kernel_util_synthed.rpt").write_text("of an earlier stage")
    assert find_reports(tmp_path) == files


def test_reports_that_differ_are_refused(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "build_emu" / "reports"
    other.mkdir(parents=True)
    (other / "csynth.xml").write_text(vitis_reports.CSYNTH)
    assert find_reports(tmp_path).synthesis == files.synthesis, "two of the same contents are one"
    (other / "csynth.xml").write_text(vitis_reports.CSYNTH.replace("98765", "98766"))
    with pytest.raises(DataError, match=r"holds 2 reports of synthesis that differ: build/reports/csynth\.xml, "
                                        r"build_emu/reports/csynth\.xml; give the folder of one build"):
        find_reports(tmp_path)


# ---- what is refused --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("content", "message"), [
    (b"", r"csynth\.xml is empty; copy it again"),
    (b"layer {}", r"csynth\.xml: no XML: .*; it may have been cut off: copy it again"),
    (vitis_reports.CSYNTH[:900].encode(), r"csynth\.xml: no XML: unclosed token"),
    (b"\xff\xfe\x00\x01", r"csynth\.xml: no XML"),
    (b'<?xml version="1.0" encoding="klingon"?><profile/>', r"csynth\.xml: no XML"),
    (b"<profile/>", r"no report of C synthesis: its outermost element is 'profile', and a profile with AreaEstimates"),
    (b"<html><body/></html>", r"no report of C synthesis: its outermost element is 'html'"),
    (b'<!DOCTYPE a [<!ENTITY b "bb">]><profile>&b;</profile>', r"declares a document type, which a report of Vi"),
    ('<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><profile/>'.encode("utf-16"), r"declares a document type"),
    (b"<a>" * (DEEPEST + 1), rf"elements lie {DEEPEST + 1} deep in one another"),
    (vitis_reports.CSYNTH.replace("<DSP>1280<", "<DSP>many<", 1).encode(), r"Resources has 'many' of DSP, no count"),
    (vitis_reports.CSYNTH.replace("<DSP>1280<", f"<DSP>{'9' * 5000}<", 1).encode(), r"of DSP, no count")])
def test_a_csynth_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "csynth.xml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_synthesis(path)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "csynth.xml"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(DataError, match=r"has more than 32 MiB, which no report has"):
        read_synthesis(path)
    loops = "".join(f"<l{i}><Latency>1</Latency></l{i}>" for i in range(1001))
    path.write_text(vitis_reports.CSYNTH.replace("<SummaryOfLoopLatency>", f"<SummaryOfLoopLatency>{loops}", 1))
    with pytest.raises(DataError, match=r"lists 1004 loops, more than the 1000 that a manifest keeps"):
        read_synthesis(path)


def test_every_truncated_csynth_is_refused() -> None:
    content = vitis_reports.CSYNTH.strip().encode()
    for end in range(0, len(content) - 1, 7):
        with pytest.raises(DataError, match=r"^x: no XML"):
            parse_xml(content[:end], "x")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("| User Budget", "| Other Budget", r"no link report: rows 'Name', 'User Budget' and 'Used Resources'"),
    ("| Name ", "| Names", r"no link report"),
    (" 1280 [10.43%] |\n|    b", "\n|    b", r"the row 'barista_gemm' has 5 cells, the table 6 columns; the report"),
    ("160000 [ 10.00%]", "lots            ", r"the row 'barista_gemm' has 'lots' of LUT, no count")])
def test_a_link_report_that_cannot_be_read(files: Files, old: str, new: str, message: str) -> None:
    assert files.link is not None
    assert old in vitis_reports.KERNEL_UTIL
    files.link.write_text(vitis_reports.KERNEL_UTIL.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_link(files.link, "barista_gemm")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"a\.txt is no report that is read here; give a csynth\.xml, a \*kernel_util_"):
        find_reports(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"holds no report of Vitis"):
        find_reports(tmp_path)
    with pytest.raises(DataError, match=r"nothing: there is no such file or folder"):
        find_reports(tmp_path / "nothing")
    (tmp_path / "x.xclbin.info").write_text("xclbin")
    with pytest.raises(DataError, match=r"no report of a binary: a line 'Kernels:' is expected; write it again: xcl"):
        read_info(tmp_path / "x.xclbin.info")


# ---- manifests --------------------------------------------------------------------------------------------

def test_a_manifest_keeps_a_report(files: Files, card: Bitstream) -> None:
    report = read_report(files, "barista_gemm")
    card.path.write_text(dataclasses.replace(card.manifest, report=report).to_json())
    assert bitstreams.load(card.path).manifest.report == report
    assert report_from_json(json.loads(json.dumps(report.to_json()))) == report
    fields = json.loads(card.path.read_text())
    fields["report"]["clock_hz"] = 300e6
    card.path.write_text(json.dumps(fields))
    with pytest.raises(BitstreamError, match=r"u250\.json was edited by hand"):
        bitstreams.load(card.path)


def test_a_manifest_of_version_2_has_none(card: Bitstream) -> None:
    from barista.hardware.manifest import _checksum

    fields = {**json.loads(card.path.read_text()), "version": 2}
    assert "report" not in fields
    del fields["checksum"]
    card.path.write_text(json.dumps({**fields, "checksum": _checksum(fields)}))
    assert bitstreams.load(card.path).manifest == card.manifest
    card.path.write_text(json.dumps({**fields, "report": BuildReport().to_json(), "checksum": "0"}))
    with pytest.raises(BitstreamError, match=r"a manifest has no field 'report'"):
        bitstreams.load(card.path)


@pytest.mark.parametrize(("change", "message"), [
    ({"clock_hz": -1}, r"report\.clock_hz is -1, no amount"),
    ({"clock_hz": 0}, r"report\.clock_hz is 0, no rate"),
    ({"clock_hz": True}, r"report\.clock_hz is True"),
    ({"more": 1}, r"report is no object with the fields synthesis, link, clock_hz"),
    ({"link": {"stage": "drawn", "used": {}, "budget": {}}}, r"report\.link\.stage is 'drawn', none of routed"),
    ({"link": {"stage": "routed", "used": {"CAT": 1}, "budget": {}}}, r"report\.link\.used is no object with counts"),
    ({"link": {"stage": "routed", "used": {"LUT": "1"}, "budget": {}}}, r"report\.link\.used\.LUT is '1', no amount"),
    ({"link": []}, r"report\.link is no object")])
def test_a_manifest_s_report_is_checked(card: Bitstream, change: dict[str, Any], message: str) -> None:
    fields = {**json.loads(card.path.read_text()), "report": {**BuildReport().to_json(), **change}}
    card.path.write_text(json.dumps(fields))
    with pytest.raises(BitstreamError, match=message):
        bitstreams.load(card.path)


@pytest.mark.parametrize(("change", "message"), [
    ({"loops": 3}, r"report\.synthesis\.loops is no list of at most 1000 loops"),
    ({"loops": [{}]}, r"report\.synthesis\.loops\[0\] is no object with the fields module, name"),
    ({"latency_cycles": [5, 4]}, r"report\.synthesis\.latency_cycles is \[5, 4\]: the least is above the most"),
    ({"latency_cycles": [5]}, r"report\.synthesis\.latency_cycles is \[5\], not the least and the most"),
    ({"used": {"DSP": -1}}, r"report\.synthesis\.used\.DSP is -1, no count"),
    ({"top": None}, r"report\.synthesis\.top is None, no text")])
def test_a_report_s_synthesis_is_checked(files: Files, change: dict[str, Any], message: str) -> None:
    said = json.loads(json.dumps(read_report(files).to_json()))
    with pytest.raises(ValueError, match=message):
        report_from_json({**said, "synthesis": {**said["synthesis"], **change}})


# ---- what is shown ----------------------------------------------------------------------------------------

def test_the_tables(files: Files, card: Bitstream) -> None:
    lines = list(describe_report(read_report(files, "barista_gemm"), card.manifest.resources))
    assert lines[:4] == ["Clock of the binary: 231 MHz",
                         "C synthesis: barista_gemm for xcu250-figd2104-2L-e, Vitis HLS 2022.1",
                         "  clock   250 MHz asked for, 312.5 MHz estimated", "  latency 120 to 98,765 cycles"]
    table = [line.split() for line in lines[5:12]]
    assert table[0] == ["resource", "model", "C", "synthesis", "of", "the", "device", "routed", "of", "the", "budget"]
    assert table[1] == ["BRAM_18K", "-", "96", "1.8%", "97", "1.9%"], "48.5 blocks of 36 Kb are 97 halves"
    assert table[2] == ["DSP", "2,304", "1,280", "10.4%", "1,280", "10.4%"]
    assert table[5] == ["URAM", "-", "0", "0.0%", "-", "-"]
    assert table[6] == ["LUTAsMem", "18,000", "2.3%"]
    assert lines[-1] == "There are loops whose II is above the 1 that the code asks for: write in write_tiles (2)."
    assert [line.split() for line in lines[13:-1]] == [
        ["loop", "in", "trips", "II", "cycles", "depth"],
        ["products", "mesh", "1", "to", "40", "-", "94", "to", "3,760", "-"],
        ["products.steps", "mesh", "94", "1", "105", "13"], ["write", "write_tiles", "-", "2", "12", "to", "340", "4"]]
    ends = {len(line.rstrip()) for line in lines[13:-1]}
    assert len(ends) == 1, "columns are aligned"


def test_the_tool_prints_and_keeps(files: Files, card: Bitstream, capsys: pytest.CaptureFixture[str]) -> None:
    assert files.synthesis is not None and files.link is not None and files.info is not None
    run = tool().main
    assert run([str(files.info.parent)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^DSP +1,280 +10\.4% +1,290 +10\.5%$", said, re.MULTILINE), "no kernel is said, and no model"
    assert run([str(files.synthesis), "--manifest", str(card.path)]) == 0
    assert re.search(r"^DSP +2,304 +1,280 +10\.4%$", capsys.readouterr().out, re.MULTILINE)
    assert run([str(files.info), "--manifest", str(card.path)]) == 0
    manifest = bitstreams.load(card.path).manifest
    assert manifest.report is not None and manifest.report.synthesis is not None, "what was there stays"
    assert (manifest.report.clock_hz, manifest.clock_hz, manifest.report.link) == (231e6, 231e6, None)
    assert bitstreams.load(card.path).damage() == ""


def test_the_tool_refuses_another_kernel_s_report(files: Files, card: Bitstream,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert files.synthesis is not None
    files.synthesis.write_text(vitis_reports.CSYNTH.replace("barista_gemm", "vadd"))
    before = card.path.read_text()
    assert tool().main([str(files.synthesis), "--manifest", str(card.path)]) == 1
    assert re.search(r"^read_hls_report: .*csynth\.xml is of the kernel 'vadd', not of 'barista_gemm'; move it away",
                     capsys.readouterr().err)
    assert card.path.read_text() == before
    assert tool().main(["nothing"]) == 1
    assert capsys.readouterr().err == ("read_hls_report: nothing: there is no such file or folder; give a report of "
                                       "Vitis, or a folder with some\n")
