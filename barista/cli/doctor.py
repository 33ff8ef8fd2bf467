"""``barista doctor``: what is installed and works here, what does not and why, and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence

from ..errors import BaristaError
from .arguments import Parser
from .checks import BROKEN, MISSING, OK, Check, host_checks
from .device_checks import EMULATED_BOARD, fpga_checks, is_device, opencl_checks
from .planning import silence

DESCRIPTION = """Check the installation: Python and packages, the processor, OpenCL drivers and devices, on each of
which a little network is computed, and what FPGA boards need. Each line says ok, missing or broken, and what to do.
The exit status is 1 where what every command needs does not work; what is missing of an extra does not count."""

EXAMPLES = """  barista doctor
  barista doctor --json
  barista doctor --bitstream bitstreams/"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, for programs")
    parser.add_argument("--bitstream", default=None, metavar="PATH",
                        help="a bitstream's manifest, or a folder of them, to look at too")


def run(args: argparse.Namespace) -> None:
    """Check everything, print it, and fail where the base is broken."""
    found: list[Check] = []
    for check in examine(args.bitstream):
        if not args.json:
            if not found or found[-1].section != check.section:
                print(("\n" if found else "") + check.section)
            print(line(check), flush=True)  # a line at a time: devices take their time
        found.append(check)
    bad = [check.name for check in found if check.needed and check.verdict != OK]
    if args.json:
        print(json.dumps({"ok": not bad, "checks": [dataclasses.asdict(check) for check in found]}, indent=2))
    else:
        print("\nVerdict\n" + "\n".join(verdict(found)))
    if bad:
        raise BaristaError(f"Barista cannot work here: {', '.join(bad)} missing or broken; do what the lines above say")


def examine(bitstream: str | None = None) -> Iterator[Check]:
    """All checks, in the order in which they are shown."""
    with silence():
        yield from host_checks()
        works = False
        for check in opencl_checks():
            works = works or (is_device(check) and check.verdict == OK)
            yield check
        yield from fpga_checks(works, bitstream)


def line(check: Check) -> str:
    """A check as it is printed: verdict, name, what was found; what to do on a line of its own."""
    text = f"  {check.verdict:<8} {check.name}" + (f": {check.detail}" if check.detail else "")
    return text + (f"\n           do this: {check.advice.removeprefix('run: ')}" if check.advice else "")


def verdict(found: Sequence[Check]) -> Iterator[str]:
    """Which backends compute here, and how many other things are missing or broken."""
    base = all(check.verdict == OK for check in found if check.needed)
    devices = list(filter(is_device, found))
    right = [check for check in devices if check.verdict == OK]
    installed = any(check.name == "opencl: pyopencl" and check.verdict == OK for check in found)
    yield f"  {OK if base else BROKEN:<8} backend cpu" + ("" if base else ": see the lines above that are not ok")
    board = next((check.verdict for check in found if check.name == EMULATED_BOARD), MISSING)
    lacking = BROKEN if installed else MISSING
    yield f"  {OK if base and right else lacking:<8} backend opencl: " + (
        f"{len(right)} of {len(devices)} device(s) compute right" if devices else "no device")
    yield f"  {OK if base and board == OK else lacking:<8} backend fpga, on the emulated board"
    for what in (MISSING, BROKEN):
        names = [check.name for check in found if check.verdict == what]
        if names:
            yield f"  {len(names)} {what}: {', '.join(names)}"
