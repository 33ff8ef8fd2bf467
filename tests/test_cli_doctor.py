"""doctor: what it finds, what it says of what is wrong, and its exit status."""

from __future__ import annotations

import configparser
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barista.cli import checks, device_checks, doctor
from barista.cli.checks import BROKEN, MISSING, OK, PACKAGES, Check, Package, package_checks, processor_checks
from barista.cli.main import main
from barista.errors import DeviceError
from barista.runtime import icd

ROOT = Path(__file__).parents[1]


def test_packages_are_those_of_the_setup() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def entries(extra: str, text: str) -> Iterator[tuple[str, str, str]]:
        for found in re.finditer(r"^\s*([\w-]+)\s*>=\s*([\d.]+)", text, re.MULTILINE):
            yield found[1], found[2], extra

    wanted = set(entries("", setup["options"]["install_requires"]))
    for extra, text in setup["options.extras_require"].items():
        if extra not in ("all", "test"):
            wanted |= set(entries(extra, text))
    assert {(package.name, package.least, package.extra) for package in PACKAGES} == wanted


@pytest.mark.opencl
@pytest.mark.parametrize("packages", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_here_all_is_well(packages: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Importing every package takes seconds."""
    if not packages:
        monkeypatch.setattr(checks, "package_checks", lambda: iter(()))
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    verdicts = {check["name"]: check["verdict"] for check in answer["checks"]}
    assert verdicts["backend cpu"] == verdicts["device 0"] == verdicts["emulated board"] == OK
    assert all(check["advice"] for check in answer["checks"] if check["verdict"] != OK)
    assert ("numpy" in verdicts) == packages


# ---- the report -------------------------------------------------------------------------------------------

def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: list[Check],
           *words: str) -> tuple[int, str, str]:
    """Status and output of a doctor who finds `found`."""
    monkeypatch.setattr(doctor, "examine", lambda bitstream: iter(found))
    status = main(["doctor", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_broken_base_ends_with_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Check("Base", "lmdb", MISSING, "not installed; for databases", "run: pip install lmdb", needed=True),
             Check("OpenCL", "device 0", OK, "x: kernels build")]
    status, out, err = report(monkeypatch, capsys, found)
    assert status == 1
    assert "barista: error: Barista cannot work here: lmdb missing or broken" in err
    assert "  missing  lmdb: not installed; for databases\n           do this: pip install lmdb\n" in out
    assert "  broken   backend cpu: see the lines above that are not ok\n" in out
    assert "1 missing: lmdb" in out
    status, out, _ = report(monkeypatch, capsys, found, "--json")
    assert status == 1 and json.loads(out)["ok"] is False


def test_what_is_missing_of_an_extra_does_not_count(monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = report(monkeypatch, capsys, [
        Check("Processor", "backend cpu", OK, needed=True), Check("Extras", "opencl: pyopencl", MISSING, "", "do"),
        Check("OpenCL", "devices", MISSING, "none", "do")])
    assert status == 0
    assert "  ok       backend cpu\n  missing  backend opencl: no device\n  missing  backend fpga" in out


# ---- packages and the processor ---------------------------------------------------------------------------

def test_a_package_that_is_missing_too_old_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up packages on the path of this process and of the one that imports them."""
    for name, code in (("good", ""), ("broken", "import libnowhere"), ("crash", "import os; os.kill(os.getpid(), 11)"),
                       ("late", "")):
        (tmp_path / f"doctor_{name}.py").write_text(code)
        info = tmp_path / f"doctor_{name}-1.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: doctor-{name}\nVersion: 1.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    packages = [Package(f"doctor-{name}", f"doctor_{name}", "1.9", extra, "trying") for name, extra in (
        ("good", ""), ("broken", "x"), ("crash", ""), ("none", ""), ("none", "x"))]
    packages.append(Package("doctor-late", "doctor_late", "1.10", "x", "trying"))
    good, broken, crash, none, extra, late = package_checks(packages)
    assert (good.section, good.verdict, good.needed, good.advice) == ("Base", OK, True, "")
    assert (broken.section, broken.name, broken.verdict, broken.needed) == ("Extras", "x: doctor-broken", BROKEN, False)
    assert "importing it fails: ModuleNotFoundError: No module named 'libnowhere'" in broken.detail
    assert broken.advice == "run: pip install --force-reinstall doctor-broken"
    assert crash.verdict == BROKEN and "crashed the process" in crash.detail
    assert (none.verdict, none.needed, none.advice) == (MISSING, True, "run: pip install 'doctor-none>=1.9'")
    assert (extra.verdict, extra.needed, extra.advice) == (MISSING, False, "run: pip install 'barista-caffe[x]'")
    assert late.verdict == BROKEN and late.detail == "1.9, but 1.10 or later is needed"


def test_pyopencl_without_a_loader() -> None:
    package = next(package for package in PACKAGES if package.name == "pyopencl")
    advice = checks._repair(package, "ImportError: libOpenCL.so.1: cannot open shared object file")
    assert "apt-get install ocl-icd-libopencl1" in advice


def test_a_processor_that_computes_wrong() -> None:
    *_, last = processor_checks(lambda: "wrong results: loss")
    assert (last.name, last.verdict, last.needed) == ("backend cpu", BROKEN, True)

    def fails() -> str:
        raise DeviceError("no")

    *_, last = processor_checks(fails)
    assert (last.verdict, last.detail) == (BROKEN, "no")


def test_wrong_results_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from barista.cli import probe

    right = probe.results
    assert probe.trouble("cpu") == ""

    def wrong(ops: Any) -> Any:
        values = right(ops)
        if ops.dtype == "float32":
            values["gradient of conv[0]"] *= 1.01
        return values

    monkeypatch.setattr(probe, "results", wrong)
    assert "wrong results: gradient of conv[0] of a little network is off by" in probe.trouble("cpu")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    last = list(checks.folder_checks())[-1]
    assert (last.name, last.verdict, last.needed) == ("cache folder", BROKEN, False)
    assert "cannot be written: Not a directory" in last.detail and "XDG_CACHE_HOME" in last.advice


# ---- drivers and devices ----------------------------------------------------------------------------------

def test_drivers_that_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icd, "_own_folders", lambda: [])
    (tmp_path / "a.icd").write_text("libnowhere.so.7\n")
    (tmp_path / "b.icd").write_text("")
    (tmp_path / "c.icd").write_text("libc.so.6")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    a, b, c = icd.drivers()
    assert (a.file, a.library) == (str(tmp_path / "a.icd"), "libnowhere.so.7")
    assert "libnowhere.so.7: cannot open shared object file" in a.problem
    assert b.problem == "the file is empty; it should name a library"
    assert "clGetExtensionFunctionAddress" in c.problem  # a library, and no driver
    monkeypatch.setenv("OCL_ICD_VENDORS", "libnowhere.so.7")
    [driver] = icd.drivers()
    assert (driver.file, driver.library) == ("OCL_ICD_VENDORS", "libnowhere.so.7")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path / "b.icd"))
    assert [driver.file for driver in icd.drivers()] == [str(tmp_path / "b.icd")]


DEVICES: dict[str, Any] = {"failed": ["Gone: no device"], "devices": [
    {"name": "Alpha", "taken": "yes, the first GPU", "unfit": ""}, {"name": "Beta", "taken": "no", "unfit": ""},
    {"name": "Gamma", "taken": "no", "unfit": "its driver has no compiler"}]}


def opencl(monkeypatch: pytest.MonkeyPatch, drivers: list[icd.Driver], answers: dict[str, Any]) -> list[Check]:
    """What is found where the probe gives these answers, by its words."""
    monkeypatch.setattr(device_checks, "drivers", lambda: drivers)
    monkeypatch.setattr(device_checks.importlib.util, "find_spec", lambda name: object())
    return list(device_checks.opencl_checks(lambda *words: answers[" ".join(words)]))


def test_devices_right_wrong_and_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    drivers = [icd.Driver("a.icd", "liba.so", ""), icd.Driver("b.icd", "libb.so", "cannot open")]
    found = opencl(monkeypatch, drivers, {
        "": DEVICES, "0": {"problem": "", "seconds": 1.25, "notes": ["kernels are built for haswell"]},
        "1": {"error": "the driver crashes (signal 11)"}})
    assert [(check.name, check.verdict) for check in found] == [
        ("driver a.icd", OK), ("driver b.icd", BROKEN), ("platform", BROKEN), ("device 0", OK), ("device 1", BROKEN),
        ("device 2", BROKEN)]
    assert found[1].detail == "libb.so cannot be used: cannot open"
    assert found[3].detail == ("Alpha: kernels build and compute right, 1.2 s; taken without --device: yes, the first "
                               "GPU; kernels are built for haswell")
    assert found[4].detail == "Beta: the driver crashes (signal 11)"
    assert found[5].detail == "Gamma: its driver has no compiler"
    assert all(check.advice for check in found if check.verdict != OK)


def test_no_driver_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = opencl(monkeypatch, [], {"": {"error": "no OpenCL platform was found"}})
    assert [(check.name, check.verdict) for check in found] == [("drivers", MISSING), ("devices", MISSING)]
    assert "pip install 'barista-caffe[opencl]'" in found[1].advice


def test_without_pyopencl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_checks.importlib.util, "find_spec", lambda name: None)
    [check] = device_checks.opencl_checks()
    assert check.verdict == MISSING and "pip install 'barista-caffe[opencl]'" in check.advice


def test_a_probe_that_crashes_hangs_or_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, expected in (("import os; os.kill(os.getpid(), 9)", "the driver crashes (signal 9)"),
                           ("import time; time.sleep(60)", "it does not answer within 1 s"),
                           ("raise SystemExit('no libfoo')", "no libfoo"), ("raise SystemExit(3)", "exit status 3"),
                           ("print('{\"a\": 1}')", None)):
        monkeypatch.setattr(device_checks, "_PROBE", (device_checks.sys.executable, "-S", "-c", code))
        monkeypatch.setattr(device_checks, "_SECONDS", 1)
        assert device_checks.ask() == ({"a": 1} if expected is None else {"error": expected})


def test_boards_bitstreams_and_the_runtime_of_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XILINX_XRT", str(tmp_path / "none"))
    found = {check.name: check for check in device_checks.fpga_checks(False, str(tmp_path))}
    assert found["emulated board"].verdict == MISSING
    assert found["bitstreams"].verdict == BROKEN and "holds no bitstream" in found["bitstreams"].detail
    assert found["XRT"].verdict == BROKEN and "there is no folder" in found["XRT"].detail
    monkeypatch.setenv("XILINX_XRT", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {check.name: check for check in device_checks.fpga_checks(
        True, None, lambda word: {"problem": "wrong results", "seconds": 1.0})}
    assert (found["emulated board"].verdict, found["emulated board"].detail) == (BROKEN, "wrong results")
    assert found["XRT"].verdict == OK
    assert found["bitstreams"].verdict == OK and "none is built yet" in found["bitstreams"].detail


@pytest.mark.parametrize(("compiler", "verdict"), [("", OK), ("/no/such/compiler", MISSING)])
def test_the_compiler(compiler: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler or sys.executable)
    check = checks.compiler_check()
    assert (check.name, check.verdict, check.needed) == ("hls: C++ compiler", verdict, False)
    assert check.detail.startswith("Python" if verdict == OK else "C-simulation: the compiler '/no/such/compiler'")
