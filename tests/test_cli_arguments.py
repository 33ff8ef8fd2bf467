"""Reading command lines: Caffe's spellings, hints for unknown names, exit statuses, help."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from types import ModuleType

import pytest

import barista
from barista.cli import main as cli
from barista.cli.arguments import Parser, UsageError, at_least, comma_list


def module(command: str) -> ModuleType:
    return importlib.import_module(f"barista.cli.{cli.COMMANDS[command][0]}")


def read(command: str, *words: str) -> argparse.Namespace:
    """Parse `words` as the command would."""
    parser = Parser(f"barista {command}", module(command).DESCRIPTION, module(command).EXAMPLES)
    module(command).add_arguments(parser)
    return parser.read(words)


@pytest.mark.parametrize("words", [
    ["-solver", "s.prototxt"], ["--solver", "s.prototxt"], ["-solver=s.prototxt"], ["--solver=s.prototxt"]])
def test_one_dash_and_two_mean_the_same(words: list[str]) -> None:
    assert read("train", *words).solver == "s.prototxt"


def test_a_value_keeps_its_equal_signs_and_dashes() -> None:
    assert read("train", "-solver=a-b=c.prototxt").solver == "a-b=c.prototxt"


@pytest.mark.parametrize("name", ["-sigint_effect", "--sigint_effect", "-sigint-effect", "--sigint-effect"])
def test_underscores_and_dashes_mean_the_same(name: str) -> None:
    assert read("train", "-solver", "s", name, "none").sigint_effect == "none"


def test_caffes_defaults_of_train() -> None:
    args = read("train", "-solver", "s")
    assert (args.sigint_effect, args.sighup_effect) == ("stop", "snapshot")
    assert (args.snapshot, args.weights, args.gpu) == (None, None, None)
    assert (args.level, args.stage) == (0, "")


def test_caffes_defaults_of_test_and_time() -> None:
    args = read("test", "-model", "m", "-weights", "w")
    assert (args.iterations, args.phase) == (50, "TEST")
    args = read("time", "-model", "m")
    assert (args.iterations, args.phase) == (50, "TRAIN")


def test_options_are_not_completed_from_their_beginnings() -> None:
    with pytest.raises(UsageError, match=r"there is no option --solv; did you mean '--solver'"):
        read("train", "-solver", "s", "-solv", "t")


def test_an_unknown_option_brings_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no option --wieghts; did you mean '--weights'\?; "
                                         r"see: barista train --help"):
        read("train", "--solver", "s", "--wieghts=x")


def test_a_word_too_many_is_named() -> None:
    with pytest.raises(UsageError, match="'more' is one word too many"):
        read("train", "--solver", "s", "more")


@pytest.mark.parametrize(("words", "message"), [
    (["--solver", "s", "--level", "high"], "--level: invalid int value: 'high'"),
    (["--solver", "s", "--threads", "0"], "--threads: 0 is too small; give 1 or more"),
    (["--solver", "s", "--seed", "x"], "--seed: 'x' is no whole number"),
    (["--solver", "s", "--sigint_effect", "explode"], "invalid choice: 'explode'"),
    (["--solver"], "--solver: expected one argument"),
    ([], "required: --solver")])
def test_a_bad_value_is_named_with_its_option(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read("train", *words)


@pytest.mark.parametrize(("words", "gray"), [
    ([], False), (["-gray"], True), (["--gray"], True), (["--gray=true"], True), (["-gray=1"], True),
    (["--gray=false"], False), (["--nogray"], False), (["-nogray"], False), (["--gray", "--gray=0"], False)])
def test_switches_as_gflags_reads_them(words: list[str], gray: bool) -> None:
    args = read("convert_imageset", *words, "root/", "list", "db")
    assert args.gray is gray
    assert (args.root_folder, args.list_file, args.db_name) == ("root/", "list", "db")


def test_a_switch_refuses_what_is_neither_true_nor_false() -> None:
    with pytest.raises(UsageError, match="'grey' is neither true nor false"):
        read("convert_imageset", "--gray=grey", "root/", "list", "db")


def test_words_behind_two_dashes_are_taken_as_they_are() -> None:
    args = read("convert_imageset", "--gray", "--", "-root/", "list", "db")
    assert args.root_folder == "-root/"


@pytest.mark.parametrize("command", ["train", "test", "time", "device_query"])
def test_every_option_of_caffe_is_accepted_by_every_brew(command: str) -> None:
    needed = {"train": ["-solver", "s"], "test": ["-model", "m", "-weights", "w"], "time": ["-model", "m"],
              "device_query": []}[command]
    for option in ("solver=s", "model=m", "phase=TEST", "level=1", "stage=a", "snapshot=x", "weights=w",
                   "iterations=3", "gpu=0", "sigint_effect=none", "sighup_effect=stop"):
        read(command, *needed, f"-{option}")


def test_comma_lists() -> None:
    assert comma_list("a,b") == ["a", "b"]
    assert comma_list("a, b") == ["a", "b"]
    assert comma_list("") == [""]


def test_at_least_takes_the_bound_itself() -> None:
    assert at_least(2)("2") == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_examples_that_parse(command: str,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: barista {command}" in text
    assert "examples:" in text
    examples = module(command).EXAMPLES.splitlines()
    assert examples
    for example in examples:
        program, name, *words = example.split()
        assert (program, name) == ("barista", command)
        read(command, *words)


def test_alone_it_prints_its_usage_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: barista COMMAND" in captured.err
    for command in cli.COMMANDS:
        assert f"  {command} " in captured.err


@pytest.mark.parametrize("words", [["--help"], ["-help"], ["-h"], ["help"]])
def test_help_is_no_failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert "usage: barista COMMAND" in capsys.readouterr().out


def test_help_for_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "time"]) == 0
    assert "usage: barista time" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--version", "-version"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"barista {barista.__version__}\n"


@pytest.mark.parametrize(("words", "message"), [
    (["trian"], "there is no command 'trian'; did you mean 'train'?"),
    (["xyzzy"], "there is no command 'xyzzy'; commands: train, test, time"),
    (["-solver", "s"], "the command comes first, before -solver"),
    (["train", "-solvr", "s"], "barista: error: ")])
def test_misuse_is_one_line_and_status_2(words: list[str], message: str,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_python_m_barista_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "barista", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"barista {barista.__version__}\n")


# ---- every flag of Caffe's tools --------------------------------------------------------------------------

CAFFE = {"solver": "s.prototxt", "model": "m.prototxt", "phase": "TEST", "level": "2", "stage": "a,b", "snapshot": "s",
         "weights": "a,b", "iterations": "7", "gpu": "0", "sigint_effect": "none", "sighup_effect": "stop"}
REQUIRED = {"train": ["-solver=s"], "test": ["-model=m", "-weights=w"], "time": ["-model=m"], "device_query": []}


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize("flag", CAFFE)
@pytest.mark.parametrize("dashes", ["-", "--"])
def test_every_flag_of_caffe_with_every_spelling(command: str, flag: str, dashes: str) -> None:
    found = []
    for words in ([f"{dashes}{flag}={CAFFE[flag]}"], [f"{dashes}{flag}", CAFFE[flag]]):
        args = vars(read(command, *REQUIRED[command], *words))
        found.append(args.get(flag, args.get(f"ignored_{flag}")))
    assert [str(value) for value in found] == [CAFFE[flag]] * 2


@pytest.mark.parametrize("words", [
    ["-solver", "none.prototxt", "train"], ["--solver=none.prototxt", "train"],
    ["-gpu", "0", "-solver", "none.prototxt", "train", "-level=1"],
    ["-logtostderr=1", "--minloglevel", "1", "train", "--solver=none.prototxt"]])
def test_options_may_stand_before_the_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    assert "none.prototxt: no such file" in capsys.readouterr().err


def test_options_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--solver", "train"]) == 2
    assert "the command comes first, before --solver" in capsys.readouterr().err


def test_options_of_glog(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-alsologtostderr", "-logtostderr=true", "-log_dir=logs", "-v=1", "--stderrthreshold", "0"]
    assert cli.main(["device_query", *words]) == 0
    log = capsys.readouterr().err
    warned = [name for name in ("log_dir", "stderrthreshold", "v", "logtostderr") if f"--{name} has no effect" in log]
    assert warned == ["log_dir", "stderrthreshold", "v"]
    assert cli.main(["device_query", "-minloglevel=1"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main(["device_query", "-minloglevel=7"]) == 2
