"""Schedules: the file, what is refused, and what they say of a layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barista.errors import ScheduleError
from barista.gemm.shapes import Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import write
from barista.hardware.board import load_board
from barista.schedule import Entry, Schedule

PLAN = Schedule("LeNet", 64, (Entry("conv1", Pass.FORWARD, "fpga", "small", "host"),
                              Entry("conv1", Pass.GRAD_WEIGHT, "cpu"),
                              Entry("conv2", Pass.FORWARD, "fpga", "large"),
                              Entry("conv2", Pass.GRAD_WEIGHT, "opencl")), inner_products="small")


def changed(**fields: Any) -> dict[str, Any]:
    """The JSON of `PLAN` with fields replaced; None leaves one out."""
    return {name: value for name, value in (PLAN.to_json() | fields).items() if value is not None}


def entry(**fields: Any) -> dict[str, Any]:
    """The JSON of `PLAN` with one entry, whose fields are replaced."""
    one = {"layer": "conv1", "pass": "forward", "engine": "fpga", "bitstream": "small"} | fields
    return changed(entries=[{name: value for name, value in one.items() if value is not None}])


def test_a_file_holds_what_was_saved(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    found = Schedule.load(tmp_path / "plan.json")
    assert found == PLAN
    assert found.source == str(tmp_path / "plan.json")
    assert found.bitstreams == ["small", "large"]


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    lines = (tmp_path / "plan.json").read_text().splitlines()
    assert ('    {"layer": "conv1", "pass": "forward", "engine": "fpga", "bitstream": "small", "im2col": "host"},'
            in lines)
    assert '    {"layer": "conv1", "pass": "grad_weight", "engine": "cpu"},' in lines
    assert '    {"layer": "conv2", "pass": "grad_weight", "engine": "opencl", "im2col": "device"}' in lines
    assert json.loads("\n".join(lines)) == PLAN.to_json()


def test_inner_products_may_be_left_out() -> None:
    assert Schedule.from_json(changed(inner_products=None)).inner_products == ""


def test_im2col_goes_with_the_engine() -> None:
    assert [e.im2col for e in PLAN.entries] == ["host", "host", "", "device"]
    for place in ("host", "device", ""):
        assert Schedule.from_json(entry(im2col=place)).entries == (
            Entry("conv1", Pass.FORWARD, "fpga", "small", place),)
    assert "im2col" not in Schedule.from_json(entry(im2col=None)).to_json()["entries"][0]
    found = Schedule.from_json(entry(engine="opencl", bitstream=None)).entries
    assert found == (Entry("conv1", Pass.FORWARD, "opencl", im2col="device"),)


def test_the_entries_of_a_layer() -> None:
    found = PLAN.passes("conv1")
    assert {pass_: (e.engine, e.bitstream) for pass_, e in found.items()} == {
        Pass.FORWARD: ("fpga", "small"), Pass.GRAD_WEIGHT: ("cpu", "")}
    with pytest.raises(ScheduleError, match=r"no entry for layer 'conv3'; did you mean 'conv[12]'"):
        PLAN.passes("conv3")


def test_another_net_or_batch_is_refused() -> None:
    PLAN.check("LeNet", 64)
    PLAN.check("LeNet", None)
    with pytest.raises(ScheduleError, match=r"a schedule of net 'LeNet', this net is 'AlexNet'"):
        PLAN.check("AlexNet", 64)
    with pytest.raises(ScheduleError, match=r"made for a batch of 64, this net has 32; set batch_size: 64"):
        PLAN.check("LeNet", 32)


@pytest.mark.parametrize(("data", "message"), [
    ([], r"plan is no JSON object"),
    (changed(format=2), r"plan has format 2; this version reads format 1"),
    (changed(net=None), r"plan: the field\(s\) net are missing"),
    (changed(batch="64"), r"batch '64' is not of the type int"),
    (changed(batch=True), r"batch True is not of the type int"),
    (changed(batch=0), r"batch 0; give 1 or more"),
    (changed(entires=[]), r"no field 'entires'; did you mean 'entries'"),
    (changed(entries=["conv1"]), r"entry 0 is no JSON object"),
    (entry(layer=None), r"entry 0: the field layer is missing"),
    (entry(layer=1), r"entry 0: layer 1 is no text"),
    (entry(**{"pass": "foward"}), r"entry 0: pass 'foward' is not known; did you mean 'forward'"),
    (entry(engine="gpu"), r"entry 0: conv1 forward: engine 'gpu' is not known; choose one of cpu, opencl, fpga"),
    (entry(engine="cpu"), r"others take none; got engine 'cpu' and bitstream 'small'"),
    (entry(engine="opencl"), r"others take none; got engine 'opencl' and bitstream 'small'"),
    (entry(bitstream=None), r"engine fpga takes the name of a bitstream"),
    (entry(im2col="card"), r"im2col 'card' does not go with engine fpga, .* host or device; give 'host' or 'device'"),
    (entry(engine="opencl", bitstream=None, im2col="host"), r"unrolls columns on the device; give 'device' or leave"),
    (changed(entries=PLAN.to_json()["entries"][:1] * 2), r"two entries for conv1 forward")])
def test_what_is_no_schedule(data: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule.from_json(data, "plan")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"none\.json: the schedule cannot be read: No such file"):
        Schedule.load(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format": 1,\n "net": ')
    with pytest.raises(ScheduleError, match=r"cut\.json:2:9: no JSON"):
        Schedule.load(tmp_path / "cut.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScheduleError, match=r"binary\.json is no schedule: it is not text"):
        Schedule.load(tmp_path / "binary.json")
    manifest = write(tmp_path, b"binary", TileSizes(8, 8, 16), "fp32", load_board("u250"))
    with pytest.raises(ScheduleError, match=r"u250\.json is a manifest, no schedule; give a file that `barista"):
        Schedule.load(manifest.path)
    (tmp_path / "machine.json").write_text('{"format": 1, "device": "d", "host": {}, "arrays": []}')
    with pytest.raises(ScheduleError, match=r"machine\.json is a calibration, no schedule; give a file that"):
        Schedule.load(tmp_path / "machine.json")
    with pytest.raises(ScheduleError, match="cannot be written"):
        PLAN.save(tmp_path / "nowhere" / "plan.json")
