"""Bitstreams: written, listed, checked and loaded, and every way in which one can be wrong."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opencl_device import open_opencl

from barista.errors import OUT_OF_MEMORY, BitstreamError, DeviceError, UnsupportedError
from barista.gemm.engine import BlockedGemm
from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import Bitstream, load, write
from barista.hardware.board import BoardSummary, load_board
from barista.hardware.library import Library
from barista.runtime import bitstream_build, bitstream_program, links
from barista.runtime.bitstream_build import build
from barista.runtime.bitstream_program import DeviceArrayEngine
from barista.runtime.context import Context
from barista.runtime.driver import cl

TILES = TileSizes(8, 8, 16)
BINARY = bytes(range(256)) * 4


@pytest.fixture
def card(tmp_path: Path) -> Bitstream:
    """A bitstream for a card, with a binary that no driver has seen."""
    return write(tmp_path / "card", BINARY, TILES, "fp32", load_board("u250"), kernel="gemm", clock_hz=150e6,
                 tools={"vitis": "2022.1"}, suffix=".xclbin")


@pytest.fixture(scope="session")
def context() -> Context:
    return open_opencl().context


@pytest.fixture(scope="session")
def original(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Bitstream:
    return build(context, tmp_path_factory.mktemp("built"), TILES, "fp32", load_board("emulated"), "fast")


@pytest.fixture
def built(original: Bitstream, tmp_path: Path) -> Bitstream:
    """A copy of a bitstream for this machine, to be damaged."""
    folder = tmp_path / "built"
    shutil.copytree(original.path.parent, folder)
    return load(folder / original.path.name)


def change(bitstream: Bitstream, **fields: Any) -> Bitstream:
    """Write other fields into a manifest, as an editor would; None takes one out."""
    text = {**json.loads(bitstream.path.read_text()), **fields}
    bitstream.path.write_text(json.dumps({name: value for name, value in text.items() if value is not None}))
    return bitstream


def forge(bitstream: Bitstream, **fields: Any) -> Bitstream:
    """Write a manifest that is wrong, and vouches for itself."""
    bitstream.path.write_text(dataclasses.replace(bitstream.manifest, **fields).to_json())
    return load(bitstream.path)


def first_version(bitstream: Bitstream, board: str) -> Bitstream:
    """Write a manifest as it was before it had a checksum."""
    return change(bitstream, version=1, board=board, checksum=None)


# ---- manifests --------------------------------------------------------------------------------------------

def test_a_manifest_comes_back(card: Bitstream) -> None:
    m = card.manifest
    assert card.name == "gemm_array_8x8x16_fp32_u250"
    assert (m.kernel, m.clock_hz, m.board.name, m.binary) == ("gemm", 150e6, "u250", card.name + ".xclbin")
    assert m.board == load_board("u250").summary
    assert load(card.path) == card == load(card.binary_path)
    assert card.binary() == BINARY
    card.verify()
    card.require_board("u250")


@pytest.mark.parametrize(("fields", "message"), [
    ({"version": 4}, r"version is 4; this Barista reads version 1, 2, 3; build or import the bitstream again"),
    ({"kind": "lstm"}, r"kind is 'lstm'; this Barista reads kind 'gemm'"),
    ({"kernal": "x"}, r"a manifest has no field 'kernal'; did you mean 'kernel'\?"),
    ({"sha256": None}, r"the field 'sha256' is missing; build or import the bitstream again"),
    ({"checksum": None}, r"the field 'checksum' is missing"),
    ({"version": 1}, r"a manifest has no field 'checksum'"),
    ({"board": "u250"}, r"board is 'u250', where name, description, platform, dsp, bram_bits is expected"),
    ({"board": {"name": "u250"}}, r"board is \{'name': 'u250'\}"),
    ({"sha256": "12"}, r"sha256 is '12', where 64 hexadecimal digits is expected"),
    ({"tiles": [8, 8]}, r"tiles is \[8, 8\], where three sizes Tr, Tc, Tp is expected"),
    ({"tiles": [8, 8, 0]}, r"tiles is \[8, 8, 0\]"),
    ({"tiles": [8, 129, 16]}, r"tile 8,129,16: Tc=129 exceeds 128, the largest that the kernel semi_systolic is"),
    ({"tiles": [8, 8, True]}, r"tiles is \[8, 8, True\]"),
    ({"precision": "fp33"}, r"'fp33' is unknown; did you mean 'fp32'"),
    ({"precision": 32}, r"precision is 32, where a text is expected"),
    ({"engine": "fasr"}, r"engine 'fasr' is not known; did you mean 'fast'\? known: array, fast, csim"),
    ({"clock_hz": 0}, r"clock_hz is 0, where a number above 0 is expected"),
    ({"clock_hz": float("inf")}, r"clock_hz is inf, where a number above 0 is expected"),
    ({"resources": {"dsp": 1}}, r"resources is \{'dsp': 1\}"),
    ({"tools": ["vitis"]}, r"tools is \['vitis'\]"),
    ({"size_bytes": -1}, r"size_bytes is -1"),
    ({"binary": "../other.bin"}, r"binary is '\.\./other\.bin', where the name of a file in the manifest's folder"),
])
def test_a_manifest_that_cannot_be_read(card: Bitstream, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BitstreamError, match=message) as caught:
        load(change(card, **fields).path)
    assert str(card.path) in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [
    ('{"version": 1, "kind"', r"not a manifest: .* it may have been cut off"),
    ("[1, 2]", r"a JSON object is expected, this is a list")])
def test_no_manifest(card: Bitstream, text: str, message: str) -> None:
    card.path.write_text(text)
    with pytest.raises(BitstreamError, match=message):
        load(card.path)


def test_a_manifest_that_is_not_there(card: Bitstream) -> None:
    text = card.path.read_text()
    card.path.unlink()
    with pytest.raises(BitstreamError, match=r"there is no manifest .*u250\.json; `barista bitstream build` makes"):
        load(card.binary_path)
    card.path.with_name("mine.json").write_text(text)
    with pytest.raises(BitstreamError, match=r"u250\.json; .*mine\.json is its manifest, under another name: give"):
        load(card.binary_path)
    card.path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BitstreamError, match=r"not a manifest: it is not text"):
        load(card.path)


@pytest.mark.parametrize("fields", [
    {"tiles": [8, 16, 8]}, {"precision": "dfxp8"}, {"engine": "fast"}, {"kernel": "tile_gemm"}, {"clock_hz": 3e8},
    {"device": "a card"}, {"resources": {"dsp": 0, "bram_bits": 0}}, {"sha256": "0" * 64}, {"tools": {}},
    {"checksum": "0" * 64}, {"checksum": 12},
    {"board": {"name": "u250", "description": "", "platform": "any", "dsp": 1, "bram_bits": 1}}], ids=str)
def test_a_manifest_edited_by_hand(card: Bitstream, fields: dict[str, Any]) -> None:
    """The binary is what it was: another size of tiles would let a kernel write beyond its buffers."""
    with pytest.raises(BitstreamError, match=r"u250\.json was edited by hand: .* build or import the bitstream again"):
        load(change(card, **fields).path)


def test_a_manifest_laid_out_anew_is_the_same(card: Bitstream) -> None:
    fields = json.loads(card.path.read_text())
    card.path.write_text(json.dumps(dict(reversed(fields.items()))))
    assert load(card.path) == card


def test_a_manifest_of_the_first_version(card: Bitstream) -> None:
    assert load(first_version(card, "vu9p_f1").path).manifest.board == load_board("vu9p_f1").summary
    with pytest.raises(BitstreamError, match=r"u250\.json: its board 'mine' does not ship, .* import the bitstream "
                                             r"again with --board FILE\.toml"):
        load(first_version(card, "mine").path)


# ---- binaries ---------------------------------------------------------------------------------------------

def test_a_truncated_binary(card: Bitstream) -> None:
    card.binary_path.write_bytes(BINARY[:100])
    with pytest.raises(BitstreamError, match=r"u250\.xclbin is truncated: it has 100 of 1024 bytes; copy it again"):
        card.verify()


def test_a_binary_of_another_manifest(card: Bitstream) -> None:
    card.binary_path.write_bytes(BINARY[:-1] + b"\0")
    assert card.damage() == ""
    with pytest.raises(BitstreamError, match=r"is not the binary of its manifest: its sha256 is \w{12}\.\.\., not \w"):
        card.verify()
    card.binary_path.write_bytes(BINARY + b"\0")
    with pytest.raises(BitstreamError, match=r"is not the one of the manifest: it has 1025 bytes instead of 1024;"):
        card.verify()


def test_a_binary_that_is_not_there(card: Bitstream) -> None:
    card.binary_path.unlink()
    with pytest.raises(BitstreamError, match=r"its binary gemm_array_8x8x16_fp32_u250\.xclbin is not beside it; copy"):
        card.verify()


def test_a_binary_under_another_name(card: Bitstream) -> None:
    name = card.manifest.binary
    card.binary_path.with_name("a.xclbin").write_bytes(bytes(len(BINARY)))
    card.binary_path.rename(card.binary_path.with_name("best.xclbin"))
    with pytest.raises(BitstreamError, match=rf"{name} is not beside it under this name, but as best\.xclbin: rename "
                                             rf"that to {name}"):
        card.require_binary()
    with pytest.raises(BitstreamError, match=r"best\.json; .*u250\.json is its manifest, under another name"):
        load(card.binary_path.with_name("best.xclbin"))
    renamed = load(change(card, binary="best.xclbin").path)
    assert renamed.binary() == BINARY


def test_a_bitstream_for_another_board(card: Bitstream) -> None:
    with pytest.raises(BitstreamError, match=r"is for the board u250, not for vu9p_f1; build it for vu9p_f1"):
        card.require_board("vu9p_f1")


def own_board(folder: Path) -> Path:
    """A file of a board that does not ship."""
    path = folder / "mine.toml"
    text = load_board("u250").path.read_text(encoding="utf-8")
    path.write_text(text.replace('name = "u250"', 'name = "mine"').replace("12_288", "10_000"), encoding="utf-8")
    return path


def test_a_board_of_one_s_own_is_needed_once(tmp_path: Path) -> None:
    path = own_board(tmp_path)
    written = write(tmp_path / "lib", BINARY, TILES, "fp32", load_board(path))
    path.unlink()
    [bitstream] = Library(tmp_path / "lib").bitstreams.values()
    assert bitstream == written
    assert bitstream.manifest.board == BoardSummary("mine", load_board("u250").description, "Xilinx", 10_000,
                                                    load_board("u250").bram_bits)
    bitstream.verify()


def test_an_empty_binary_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BitstreamError, match=r"the binary is empty"):
        write(tmp_path, b"", TILES, "fp32", load_board("u250"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("a file")
    with pytest.raises(BitstreamError, match=r"u250\.json: the bitstream cannot be written \(.*\); free some space, or "
                                             r"choose another folder with --out"):
        write(tmp_path / "lib", BINARY, TILES, "fp32", load_board("u250"))


# ---- libraries --------------------------------------------------------------------------------------------

def test_a_library(card: Bitstream) -> None:
    folder = card.path.parent
    other = write(folder, BINARY, TileSizes(4, 4, 4), "dfxp8", load_board("vu9p_f1"))
    library = Library(folder)
    assert list(library.bitstreams) == ["gemm_array_4x4x4_dfxp8_vu9p_f1", card.name]
    assert library.find(card.name) == card
    with pytest.raises(BitstreamError, match=r"holds no bitstream 'gemm_array_4x4x4_dfxp8_vu9p'; did you mean "
                                             r"'gemm_array_4x4x4_dfxp8_vu9p_f1'"):
        library.find("gemm_array_4x4x4_dfxp8_vu9p")
    with pytest.raises(BitstreamError, match=r"holds no bitstream 'q'; it holds gemm_array_4x4x4_dfxp8_vu9p_f1, gemm"):
        library.find("q")
    assert list(Library(other.binary_path).bitstreams) == [other.name]


def test_an_empty_library(tmp_path: Path) -> None:
    with pytest.raises(BitstreamError, match=r"holds no bitstream; build one: `barista bitstream build --out "):
        Library(tmp_path)
    with pytest.raises(BitstreamError, match=r"there is no such folder"):
        Library(tmp_path / "nowhere")


def test_what_else_lies_in_a_library(card: Bitstream, caplog: pytest.LogCaptureFixture) -> None:
    folder = card.path.parent
    schedule = folder / "a_schedule.json"
    schedule.write_text('{"format": 1, "net": "LeNet", "batch": 64, "entries": []}')
    (folder / "machine.json").write_text('{"format": 1, "device": "a processor", "host": {}, "arrays": []}')
    assert list(Library(folder).bitstreams) == [card.name]
    assert not caplog.messages
    (folder / "folder.json").mkdir()
    for name, text in (("notes", b'{"kinds": 1}'), ("list", b"[1]"), ("half", b'{"a": '), ("bytes", b"\xff\xfe\0")):
        (folder / f"{name}.json").write_bytes(text)
    assert list(Library(folder).bitstreams) == [card.name]
    assert sorted(message.split("/")[-1] for message in caplog.messages) == [
        f"{name}.json is no manifest of a bitstream; it is passed over"
        for name in ("bytes", "folder", "half", "list", "notes")]
    with pytest.raises(BitstreamError, match=r"a_schedule\.json is a schedule, no manifest of a bitstream; give it "
                                             r"with --schedule"):
        load(schedule)
    with pytest.raises(BitstreamError, match=r"card is a folder; give one bitstream in it, which `barista bitstream l"):
        load(folder)
    (folder / "cut.json").write_text(card.path.read_text()[:200])
    with pytest.raises(BitstreamError, match=r"cut\.json: not a manifest: .* it may have been cut off"):
        Library(folder)


def test_a_manifest_that_may_not_be_read(card: Bitstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BitstreamError, match=r"u250\.json cannot be read: Permission denied; see to its rights or"):
        Library(card.path.parent)


# ---- on a device ------------------------------------------------------------------------------------------

@pytest.mark.opencl
def test_a_bitstream_multiplies(context: Context, built: Bitstream) -> None:
    array = DeviceArrayEngine(context, built)
    assert array.name == f"{built.name} on {context.name}"
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((20, 33)), rng.standard_normal((33, 50)), rng.standard_normal((20, 50))
    a, b, c = (values.astype(np.float32) for values in (a, b, c))
    expected = 2.0 * a.astype(np.float64) @ b - c
    times = BlockedGemm(array, GemmShape(20, 50, 33)).run(a, b, c, 2.0, -1.0)
    np.testing.assert_allclose(c, expected, atol=1e-4)
    assert min(times.write, times.kernel, times.read) > 0


@pytest.mark.opencl
def test_a_damaged_binary_never_reaches_the_driver(context: Context, built: Bitstream) -> None:
    built.binary_path.write_bytes(built.binary()[:5000])
    with pytest.raises(BitstreamError, match=r"is truncated: it has 5000 of "):
        DeviceArrayEngine(context, built)


@pytest.mark.opencl
def test_a_binary_for_another_device(context: Context, built: Bitstream) -> None:
    forge(built, device="a card / OpenCL 1.2 / v1")
    with pytest.raises(BitstreamError, match=r"is for another device: built for a card / OpenCL 1\.2 / v1, this is .*; "
                                             r"build it again on this machine"):
        DeviceArrayEngine(context, load(built.path))


@pytest.mark.opencl
def test_a_driver_that_refuses_the_binary(context: Context, built: Bitstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise cl.LogicError(cl._cl._ErrorRecord("clCreateProgramWithBinary", cl.status_code.INVALID_BINARY, ""))

    monkeypatch.setattr(bitstream_program.cl, "Program", refuse)
    with pytest.raises(BitstreamError, match=r"refuses the binary \(INVALID_BINARY\); it is for another device"):
        DeviceArrayEngine(context, built)


@pytest.mark.opencl
def test_a_bitstream_for_a_card_on_a_processor(context: Context, card: Bitstream) -> None:
    with pytest.raises(BitstreamError, match=r"is for the board u250, of the platform Xilinx; .* belongs to .*: choose "
                                             r"the board with --device, or a bitstream for the board emulated"):
        DeviceArrayEngine(context, card)


@pytest.mark.opencl
def test_a_kernel_that_the_binary_does_not_have(context: Context, built: Bitstream) -> None:
    forge(built, kernel="gemm")
    with pytest.raises(BitstreamError, match=r"has no kernel 'gemm'; it has tile_gemm; import it again, with --kernel"):
        DeviceArrayEngine(context, load(built.path))


@pytest.mark.opencl
@pytest.mark.parametrize(("tiles", "precision", "board", "engine", "message"), [
    (TileSizes(129, 8, 8), "fp32", "emulated", "array", r"tile 129,8,8: Tr=129 exceeds 128, .* the kernel semi_"),
    (TileSizes(8, 8, 1025), "fp32", "emulated", "fast", r"Tp=1025 exceeds 1024, the largest that the kernel tile_"),
    (TILES, "fp31", "emulated", "array", r"'fp31' is unknown"),
    (TILES, "fp32", "emulated", "slow", r"engine 'slow' is not known; known: array, fast, csim"),
    (TILES, "fp32", "u250", "array", r"board u250: a bitstream for it is an \.xclbin .* `barista bitstream import`")])
def test_what_is_not_built(context: Context, tmp_path: Path, tiles: TileSizes, precision: str, board: str, engine: str,
                           message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build(context, tmp_path, tiles, precision, load_board(board), engine)
    assert not list(tmp_path.iterdir())


@pytest.mark.opencl
def test_a_kernel_that_does_not_build_shows_the_log(context: Context, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.cl"
    broken.write_text("__kernel void tile_gemm(__global float *a) { a[0] = nonsense; }")
    monkeypatch.setattr(bitstream_build, "find", lambda *_: broken)
    with pytest.raises(DeviceError, match=r"tile_gemm\.cl does not build on .* with the options -DTR=8 .*\n(.*\n)*.*"
                                          r"use of undeclared identifier 'nonsense'"):
        build(context, tmp_path / "out", TILES, "fp32", load_board("emulated"), "fast")
    assert not (tmp_path / "out").exists()


@pytest.mark.opencl
def test_an_array_too_large_for_its_card_is_built_with_a_warning(context: Context, tmp_path: Path,
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "barista"):
        build(context, tmp_path, TileSizes(64, 64, 4), "fp32", load_board("emulated"), "fast")
    assert "takes 36864 DSP blocks where the board emulated stands for a card with 6840" in caplog.text


@pytest.mark.opencl
def test_too_little_memory_is_said_by_name_and_gives_the_buffers_back(context: Context, built: Bitstream,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine comes back with smaller blocks: two rows of tiles are too many here, one is not."""
    array = DeviceArrayEngine(context, built, migrate=False)
    asked: list[int] = []
    largest = TILES.tr * 48 * 4 + 1

    class Small(cl.Buffer):  # type: ignore[misc]
        def __new__(cls, handle: Any, flags: Any, size: int = 0) -> Any:
            asked.append(size)
            if size > largest:
                raise cl.MemoryError(cl._cl._ErrorRecord("clCreateBuffer",
                                                         cl.status_code.MEM_OBJECT_ALLOCATION_FAILURE, ""))
            return cl.Buffer(handle, flags, size)

    monkeypatch.setattr(links, "cl", _Patched(links.cl, Buffer=Small))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 48), (48, 8)))
    tiles_a, tiles_b = np.zeros(TILES.a_shape(8, 3), np.float32), np.zeros(TILES.b_shape(1, 3), np.float32)
    array.begin(8, 1, 3)
    with pytest.raises(DeviceError, match=rf"{OUT_OF_MEMORY[0]}.*lower the batch size") as caught:
        array.multiply(tiles_a, tiles_b, np.zeros(TILES.c_shape(8, 1), np.float32), 8, 1, 3)
    assert f"{built.name} on {context.name}: a product of 8 x 1 tiles along 3" in str(caught.value)
    c = np.full((64, 8), np.nan, np.float32)
    BlockedGemm(array, GemmShape(64, 8, 48)).run(a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, atol=1e-4)
    assert max(asked) > largest


class _Patched:
    """A module with a few names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.mark.opencl
def test_a_block_fits_into_the_device(context: Context, built: Bitstream, monkeypatch: pytest.MonkeyPatch) -> None:
    array = DeviceArrayEngine(context, built)
    assert array.begin(5, 7, 3) == (5, 7)
    row = 3 * TILES.tp * TILES.tr * 4

    class Tiny:
        max_mem_alloc_size, global_mem_size = 4 * row, 1 << 30

    monkeypatch.setattr(array, "_context", _Patched(context, device=Tiny))
    assert array.begin(5, 7, 3) == (4, 4)
    assert array.begin(2, 3, 3) == (2, 3)
    assert array.begin(1, 1, 1000) == (1, 1)


@pytest.mark.opencl
def test_tiles_of_another_size_or_kind(context: Context, built: Bitstream) -> None:
    array = DeviceArrayEngine(context, built)
    a, b, c = (np.zeros(shape, np.float32) for shape in (TILES.a_shape(2, 1), TILES.b_shape(2, 1), TILES.c_shape(2, 2)))
    array.multiply(a, b, c, 2, 2, 1)
    for wrong, name in (((a[:1], b, c), "A"), ((a, b.astype(np.float64), c), "B"), ((a, b, c.swapaxes(0, 1)), "C")):
        with pytest.raises(DeviceError, match=rf"the tiles of {name} are float.* where contiguous float32 of .* are"):
            array.multiply(*wrong, 2, 2, 1)
