"""The bitstream of those who give none: built once, with a word about it, and kept; and bitstreams of other boards."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from opencl_device import open_opencl

from barista.errors import BitstreamError
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import write
from barista.hardware.board import load_board
from barista.ops.fpga import device
from barista.ops.fpga.device import open_loader

NAME = "gemm_fast_16x16x16_fp32_emulated"


@pytest.mark.opencl
def test_building_is_said_and_so_is_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    open_opencl()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level("INFO", "barista"):
        loader, default = open_loader()
    [kept] = (tmp_path / "barista" / "bitstreams").iterdir()
    assert (default, loader.names) == (NAME, [NAME])
    said = [message for message in caplog.messages if NAME in message]
    assert len(said) == 1 and said[0].startswith(f"No bitstream is given: {NAME} is built for ")
    assert said[0].endswith(f", once, and kept in {kept}")
    caplog.clear()
    with caplog.at_level("INFO", "barista"):
        open_loader()
    assert not [message for message in caplog.messages if NAME in message]


@pytest.mark.opencl
def test_a_cache_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_opencl()
    (tmp_path / "barista").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BitstreamError, match=rf"the bitstream {NAME} cannot be kept in .*: .*; set XDG_CACHE_HOME to a "
                                             r"folder that can be written, or build one with `barista bitstream build"):
        open_loader()


@pytest.mark.opencl
def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_opencl()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rename = os.rename

    def too_late(source: Any, target: Any) -> None:
        rename(source, target)
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(device.os, "rename", too_late)
    assert open_loader()[1] == NAME


def test_bitstreams_of_two_boards(tmp_path: Path) -> None:
    for board in ("u250", "vu9p_f1"):
        write(tmp_path, b"binary", TileSizes(8, 8, 8), "fp32", load_board(board))
    with pytest.raises(BitstreamError, match=r"holds bitstreams of the boards u250 and vu9p_f1; give those of one boa"):
        open_loader(tmp_path)


@pytest.mark.opencl
def test_a_bitstream_for_a_board_of_one_s_own_runs_without_its_file(tmp_path: Path) -> None:
    """An emulation under another name: nothing but the manifest says that any device will do."""
    open_opencl()
    board = dataclasses.replace(load_board("emulated"), name="desk", dsp=100)
    write(tmp_path, b"binary", TileSizes(8, 8, 8), "fp32", board)
    loader, default = open_loader(tmp_path)
    assert default == "gemm_array_8x8x8_fp32_desk"
    assert loader.device.startswith("board desk (")
