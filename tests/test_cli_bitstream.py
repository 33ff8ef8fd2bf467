"""``barista bitstream``: each action, and what it says when it cannot be done."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from opencl_device import open_opencl

from barista.cli.bitstream_verify import compare
from barista.cli.main import main
from barista.errors import BitstreamError
from barista.gemm.array_model import ModelArray
from barista.gemm.engine import StageTimes
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import load
from barista.hardware.board import board_names, load_board
from barista.precision.formats import number_format

Capture = pytest.CaptureFixture[str]


def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``barista bitstream``."""
    status = main(["bitstream", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.opencl
@pytest.mark.parametrize("engine", ["array", "fast"])
@pytest.mark.parametrize("precision", ["fp32", "dfxp12"])
def test_build_list_inspect_verify(tmp_path: Path, capsys: Capture, engine: str, precision: str) -> None:
    open_opencl()
    name = f"gemm_{engine}_8x4x16_{precision}_emulated"
    status, _, err = say(capsys, "build", "--tile", "8,4,16", "--precision", precision, "--board", "emulated",
                         "--engine", engine, "--out", tmp_path / "lib")
    assert status == 0, err
    assert sorted(path.name for path in (tmp_path / "lib").iterdir()) == [f"{name}.bin", f"{name}.json"]
    status, out, _ = say(capsys, "list", tmp_path / "lib")
    assert (status, out.split()) == (0, [name, "tile", "8,4,16", precision, engine, "emulated"])
    status, out, _ = say(capsys, "inspect", tmp_path / "lib" / f"{name}.bin")
    assert status == 0
    assert re.search(r"^Tile Tr,Tc,Tp: +8,4,16$", out, re.MULTILINE)
    dsp = 32 * (9 if precision == "fp32" else 3)
    assert re.search(rf"^DSP: +{dsp} of 6840 \({dsp / 6840:.1%}\)$", out, re.MULTILINE)
    assert re.search(r"^Tools: +barista .*Portable Computing Language", out, re.MULTILINE)
    status, _, err = say(capsys, "verify", tmp_path / "lib" / f"{name}.json", "--board", "emulated")
    assert status == 0, err
    assert "the binary is that of the manifest, and computes what the array's model does" in err


@pytest.mark.opencl
def test_verify_notices_a_truncated_binary_and_another_board(tmp_path: Path, capsys: Capture) -> None:
    open_opencl()
    say(capsys, "build", "--tile", "2,2,2", "--out", tmp_path)
    [manifest] = tmp_path.glob("*.json")
    status, _, err = say(capsys, "verify", manifest, "--board", "u250")
    assert (status, err.count("\n")) == (1, 1)
    assert "is for the board emulated, not for u250" in err
    binary = manifest.with_suffix(".bin")
    binary.write_bytes(binary.read_bytes()[:99])
    status, _, err = say(capsys, "verify", manifest)
    assert status == 1
    assert "is truncated: it has 99 of" in err


@pytest.mark.opencl
def test_verify_notices_a_kernel_that_computes_something_else(tmp_path: Path, capsys: Capture) -> None:
    """A manifest that says 3 x 2 of a mesh of 2 x 3, and vouches for itself."""
    open_opencl()
    say(capsys, "build", "--tile", "2,3,4", "--out", tmp_path)
    [manifest] = tmp_path.glob("*.json")
    manifest.write_text(dataclasses.replace(load(manifest).manifest, array=TileSizes(3, 2, 4)).to_json())
    status, _, err = say(capsys, "verify", manifest)
    assert status == 1
    assert re.search(r"\d+ of 36 numbers differ from the array's model, the first at \[tile row, tile column, row, "
                     r"column\] \[\d", err)


def test_compare_allows_rounding_only_where_it_is_said() -> None:
    class Off(ModelArray):
        def multiply(self, *arguments: object) -> StageTimes:  # type: ignore[override]
            times = super().multiply(*arguments)  # type: ignore[arg-type]
            c = arguments[2]
            assert isinstance(c, np.ndarray)
            c *= np.float32(1 + self.error)
            return times

        error = 0.0

    model = ModelArray(TileSizes(4, 4, 8), number_format("fp32"))
    off = Off(model.tiles, model.format)
    compare(off, model, exact=True)
    off.error = 2.0**-22
    compare(off, model, exact=False)
    with pytest.raises(BitstreamError, match="differ from the array's model"):
        compare(off, model, exact=True)
    off.error = 1e-2
    with pytest.raises(BitstreamError, match="differ from the array's model"):
        compare(off, model, exact=False)
    off.error = float("nan")
    with pytest.raises(BitstreamError, match="96 of 96 numbers differ"):
        compare(off, model, exact=False)


def test_import_gives_a_card_s_binary_a_manifest(tmp_path: Path, capsys: Capture) -> None:
    binary = tmp_path / "mine.xclbin"
    binary.write_bytes(b"xclbin2\0" + bytes(1000))
    out = tmp_path / "lib"
    status, _, err = say(capsys, "import", binary, "--board", "u250", "--tile", "32,32,64", "--precision", "fp32",
                         "--kernel", "gemm", "--clock-hz", "2e8", "--out", out)
    assert status == 0, err
    manifest = json.loads((out / "gemm_array_32x32x64_fp32_u250.json").read_text())
    assert (manifest["kernel"], manifest["clock_hz"], manifest["size_bytes"]) == ("gemm", 2e8, 1008)
    assert (out / manifest["binary"]).read_bytes() == binary.read_bytes()
    status, text, _ = say(capsys, "inspect", out / manifest["binary"])
    assert status == 0
    assert re.search(r"^DSP: +9216 of 12288 \(75\.0%\)$", text, re.MULTILINE)
    status, _, err = say(capsys, "verify", out / manifest["binary"])
    assert status == 0
    assert "it was not loaded, which takes the board u250" in err


def card(folder: Path, capsys: Capture, *words: str) -> Path:
    """Import a binary that no driver has seen; returns its manifest."""
    binary = folder / "mine.xclbin"
    binary.write_bytes(b"xclbin2\0" + bytes(1000))
    status, _, err = say(capsys, "import", binary, "--out", folder / "lib", *words)
    assert status == 0, err
    [manifest] = (folder / "lib").glob("*.json")
    return manifest


def test_a_board_of_one_s_own(tmp_path: Path, capsys: Capture) -> None:
    """Its file is read when a bitstream is imported, and afterwards where somebody asks for it."""
    text, mine = load_board("u250").path.read_text(encoding="utf-8"), tmp_path / "mine.toml"
    mine.write_text(text.replace('name = "u250"', 'name = "mine"').replace("12_288", "5_000"), encoding="utf-8")
    words = ("--tile", "8,8,16", "--precision", "fp32", "--board", str(mine))
    manifest = card(tmp_path, capsys, *words)
    assert manifest.stem == "gemm_array_8x8x16_fp32_mine"
    mine.write_text(mine.read_text().replace("5_000", "6_000"))
    assert "DSP:             576 of 6000 (9.6%)" in say(capsys, "inspect", manifest, "--board", mine)[1]
    assert say(capsys, "verify", manifest, "--board", mine)[0] == 0
    mine.unlink()
    assert "DSP:             576 of 5000 (11.5%)" in say(capsys, "inspect", manifest)[1]
    assert say(capsys, "verify", manifest)[0] == 0
    assert say(capsys, "list", manifest.parent)[1].split()[-1] == "mine"
    status, _, err = say(capsys, "inspect", manifest, "--board", "u250")
    assert (status, "is for the board mine, not for u250" in err) == (1, True)


def test_import_warns_of_an_array_beyond_the_board(tmp_path: Path, capsys: Capture) -> None:
    binary = tmp_path / "mine.xclbin"
    binary.write_bytes(b"xclbin2\0" + bytes(1000))
    words = ("import", binary, "--tile", "64,64,8", "--board", "u250", "--out", tmp_path / "lib", "--precision")
    _, _, err = say(capsys, *words, "fp32")
    assert "takes 36864 DSP blocks by the models' count, and the board u250 has 12288: see that --tile" in err
    status, _, err = say(capsys, *words, "dfxp8")
    assert (status, err.count("takes")) == (0, 0), "3 blocks an element are 12,288"


@pytest.mark.parametrize(("content", "shown"), [
    (bytes(99), "truncated: it has 99 of 1008 bytes"), (None, "missing"),
    (bytes(2000), "not the one of the manifest: it has 2000 bytes instead of 1008")], ids=["short", "none", "long"])
def test_damaged_binaries_are_shown(tmp_path: Path, capsys: Capture, content: bytes | None, shown: str) -> None:
    manifest = card(tmp_path, capsys, "--tile", "8,8,16", "--precision", "fp32", "--board", "u250")
    assert "binary" not in say(capsys, "list", manifest.parent)[1]
    binary = manifest.with_suffix(".xclbin")
    binary.unlink() if content is None else binary.write_bytes(content)
    status, out, _ = say(capsys, "list", manifest.parent)
    assert (status, out.endswith(f"u250  (binary {shown})\n")) == (0, True), out
    status, out, _ = say(capsys, "inspect", manifest)
    assert status == 0
    assert re.search(rf"^Binary: .* sha256 \w{{64}} \({re.escape(shown)}\)$", out, re.MULTILINE)
    assert say(capsys, "verify", manifest)[0] == 1


def test_help_and_document_name_every_board(capsys: Capture) -> None:
    document = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| `--board NAME` \| `build`, `configure`, `import` \|.*$", document, re.MULTILINE)
    status, out, _ = say(capsys, "--help")
    assert status == 0
    for name in board_names():
        assert f"`{name}`" in row
        assert re.search(rf"one of[^;]*\b{name}\b", out), name


CARD = ["--tile", "8,8,8", "--precision", "fp32"]


@pytest.mark.parametrize(("words", "status", "message"), [
    (["bild"], 2, r"bitstream has no action 'bild'; did you mean 'build'\?"),
    ([], 2, r"ACTION"),
    (["build", "x"], 2, r"'x' is one word too many"),
    (["list"], 2, r"bitstream list needs a folder"),
    (["verify"], 2, r"bitstream verify needs a file"),
    (["build", "--board", "u25"], 1, r"board 'u25' is not known; did you mean 'u250'"),
    (["build", "--tile", "16,16"], 1, r"tile '16,16' is not three integers"),
    (["build", "--tile", "0,1,1"], 1, r"Tr=0 is outside 1 to"),
    (["build", "--kernel", "gemm"], 2, r"bitstream build has no use for --kernel; it takes --tile, --array, --model"),
    (["list", "lib", "--board", "u250"], 2, r"bitstream list has no use for --board; it has no options of its own"),
    (["inspect", "nothing.json"], 1, r"there is no manifest nothing\.json"),
    (["inspect", "."], 1, r"\. is a folder; give one bitstream in it, which `barista bitstream list \.` names"),
    (["verify", "."], 1, r"\. is a folder"),
    (["list", "nothing"], 1, r"nothing: there is no such folder; `barista bitstream build --out nothing` makes it"),
    (["list", "."], 1, r"\. holds no bitstream; build one"),
    (["import", "a.xclbin"], 2, r"bitstream import needs --tile, --precision, --board, which cannot be read from the"),
    (["import", "a.xclbin", "--board", "u250", "--tile", "8,8,8"], 2, r"bitstream import needs --precision, which"),
    (["import", "a.xclbin", *CARD, "--engine", "fast", "--board", "u250"], 2, r"import has no use for --engine; it"),
    (["import", "a.xclbin", *CARD, "--board", "u250"], 1, r"a\.xclbin cannot be read \(No such file.*\); give the f"),
    (["import", ".", *CARD, "--board", "u250"], 1, r"\. cannot be read \(Is a directory\)"),
    (["import", "a.xclbin", *CARD, "--board", "emulated"], 1,
     r"is for a card; give one of u200, u250, u280, u50, vu9p_f1 or a \.toml file with --board"),
    (["import", "a.xclbin", *CARD, "--board", "u250", "--clock-hz", "-1"], 1, r"--clock-hz -1: give a clock above 0"),
    (["import", "a.xclbin", *CARD, "--board", "u250", "--clock-hz", "inf"], 1, r"--clock-hz inf: give a clock")])
def test_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str],
                             status: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = say(capsys, *words)
    assert found == status
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_import_refuses_what_is_no_xclbin(tmp_path: Path, capsys: Capture) -> None:
    wrong = tmp_path / "mine.xclbin"
    wrong.write_bytes(b"layer {}")
    status, _, err = say(capsys, "import", wrong, *CARD, "--board", "u250", "--out", tmp_path / "lib")
    assert status == 1
    assert re.search(r"mine\.xclbin: not an \.xclbin: it does not begin with 'xclbin2'", err)
    wrong = wrong.rename(tmp_path / "mine.json")
    status, _, err = say(capsys, "import", wrong, *CARD, "--board", "u250", "--out", tmp_path / "lib")
    assert (status, "mine.json has the suffix of a manifest; give the binary" in err) == (1, True)
    assert not (tmp_path / "lib").exists()


@pytest.mark.opencl
@pytest.mark.parametrize(("words", "message"), [
    (["--tile", "8,8,2000"], r"tile 8,8,2000: Tp=2000 exceeds 1024"),
    (["--board", "vu9p_f1"], r"board vu9p_f1: a bitstream for it is an \.xclbin"),
    (["--precision", "fp16"], r"'fp16' is unknown"),
    (["--engine", "quick"], r"engine 'quick' is not known")])
def test_what_cannot_be_built(tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    open_opencl()
    status, _, err = say(capsys, "build", "--out", tmp_path / "lib", *words)
    assert status == 1
    assert re.search(message, err), err
    assert not (tmp_path / "lib").exists()
