"""What tests of the way from a plan to a card share: commands, folders and schedules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barista.cli.main import main
from barista.gemm.tiles import TileSizes
from barista.resources import find

Capture = pytest.CaptureFixture[str]

TILES = TileSizes(4, 4, 8)
NAME = "gemm_array_4x4x8_fp32_u250"
SHELL = "xilinx_u250_gen3x16_xdma_4_1_202210_1"
LENET = ("--model", str(find("prototxt", "lenet", "train_val.prototxt")), "--input-shape", "1,28,28")
CONV = {"kind": "conv", "x": 4, "y": 3, "z": 8, "line_words": 32, "kern_words": 24, "out_words": 8,
        "precision": "fp32", "port_bits": 512}


def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``barista``."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def configured(capsys: Capture, out: Path, *words: str | Path) -> Path:
    """The one folder that ``bitstream configure`` wrote."""
    status, _, err = say(capsys, "bitstream", "configure", *words, "--out", out)
    assert status == 0, err
    [folder] = out.iterdir()
    return folder


def schedule(folder: Path, names: list[str], engine: str = "fpga", **more: Any) -> Path:
    """A schedule that puts a layer on each of some bitstreams."""
    entries = [{"layer": f"conv{number}", "pass": "forward", "engine": engine,
                **({"bitstream": name} if engine == "fpga" else {})} for number, name in enumerate(names)]
    file = folder / "schedule.json"
    file.write_text(json.dumps({"format": 1, "net": "n", "batch": 1, "entries": entries, **more}))
    return file
