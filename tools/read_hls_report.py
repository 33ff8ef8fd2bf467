"""Read what Vitis reported of a build: cycles, II of every loop, resources, and the clock that was achieved.

Usage: ``python tools/read_hls_report.py FOLDER_OR_FILE [--manifest MANIFEST]``.  FOLDER is one that ``make hw`` filled
(``build/hw``), or any with a ``csynth.xml``, a ``*kernel_util_routed.rpt`` or a ``*.xclbin.info`` below it; FILE is one
of them.  With ``--manifest`` the reports go into the manifest of the bitstream, whose design then stands beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from barista.cli.bitstream_import import check_synthesis
from barista.errors import BaristaError
from barista.files import replacing
from barista.hardware import bitstream as bitstreams
from barista.hardware.report import BuildReport
from barista.synthesis.project import find_project, load_project
from barista.synthesis.report_tables import describe_report
from barista.synthesis.reports import find_reports, read_report


def main(argv: list[str] | None = None) -> int:
    """Print the reports, and keep them; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("place", metavar="FOLDER_OR_FILE", type=Path)
    parser.add_argument("--manifest", metavar="MANIFEST", default=None,
                        help="write the reports into this manifest of a bitstream")
    args = parser.parse_args(argv)
    try:
        run(args.place, args.manifest)
    except BaristaError as error:
        print(f"read_hls_report: {error}", file=sys.stderr)
        return 1
    return 0


def run(place: Path, manifest: str | None) -> None:
    """Read, print and keep.

    Raises
    ------
    BaristaError : no report, one that cannot be read, or one of another kernel than the manifest's
    """
    files = find_reports(place)
    bitstream = None if manifest is None else bitstreams.load(manifest)
    design = find_project(place if place.is_dir() else place.parent)
    project = None if design is None else load_project(design)
    kernel = bitstream.manifest.kernel if bitstream is not None else project.design.kernel if project else ""
    report = read_report(files, kernel)
    declared = bitstream.manifest.resources if bitstream is not None else project.resources if project else None
    print("\n".join([*(f"Read {file}" for file in files if file is not None), "",
                     *describe_report(report, declared)]))
    if bitstream is not None:
        keep(bitstream, report, files.synthesis)


def keep(bitstream: bitstreams.Bitstream, report: BuildReport, synthesis: Path | None) -> None:
    """Put a report into a manifest; what it does not say stays as it was there.

    Raises
    ------
    BaristaError : it is of another kernel, or the manifest cannot be written
    """
    m = bitstream.manifest
    check_synthesis(report, synthesis, m.kernel)
    before = m.report or BuildReport()
    merged = BuildReport(report.synthesis or before.synthesis, report.link or before.link,
                         report.clock_hz or before.clock_hz)
    changed = dataclasses.replace(m, report=merged, clock_hz=merged.clock_hz or m.clock_hz)
    with replacing(bitstream.path) as part:
        part.write_text(changed.to_json(), encoding="utf-8")
    print(f"\nWrote {bitstream.path}")


if __name__ == "__main__":
    sys.exit(main())
