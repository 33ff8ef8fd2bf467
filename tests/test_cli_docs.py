"""README and docs say what is true: commands, options, layers, dependencies, and the first own network."""

from __future__ import annotations

import configparser
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import barista
from barista.cli.arguments import Parser
from barista.cli.main import COMMANDS, main
from barista.glog import LEVELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text()


def blocks(kind: str) -> list[str]:
    """The README's fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readme_lists_every_command_and_no_other() -> None:
    listed = re.findall(r"^\| `barista (\w+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_the_readme_lists_every_layer_and_no_other() -> None:
    found = re.search(r"\*\*Layers:\*\* .*?, namely (.*?); and of its forks (.*?); and of our own, .*?, (Binary.*?)\. ",
                      README, re.DOTALL)
    assert found is not None
    listed = " ".join(found.groups()).replace("\n", " ").replace(",", " ").split()
    assert sorted(listed) == sorted(barista.layer_type_list())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    module = importlib.import_module(f"barista.cli.{COMMANDS[command][0]}")
    parser = Parser(f"barista {command}", module.DESCRIPTION, module.EXAMPLES)
    module.add_arguments(parser)
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", COMMAND_LINE, re.MULTILINE | re.DOTALL))
    own = sections[f"barista {command}"]
    for section in ("Where a network is computed", "Which layers take part"):
        text = sections[section]
        said_of, _, _ = text.partition(".")
        if f"`{command}`" in said_of:
            own += text
    options = {option for action in parser._actions for option in action.option_strings
               if action.help != "==SUPPRESS==" and option.startswith("--") and option != "--help"}
    documented = set(re.findall(r"`(--[\w-]+)", own))
    assert options <= documented, f"not in docs/command-line.md: {sorted(options - documented)}"


def test_the_options_of_every_command_are_documented() -> None:
    assert "`--quiet`" in COMMAND_LINE
    assert "`--log-level " + "\\|".join(LEVELS) + "`" in COMMAND_LINE


def test_every_dependency_has_its_reason() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = (ROOT / "docs" / "dependencies.md").read_text()

    def names(entries: str) -> set[str]:
        return {re.split(r"[\s<>=!;\[]", line, maxsplit=1)[0] for line in entries.split("\n") if line.strip()}

    always = set(re.findall(r"^\| `([\w-]+)` \| [^|`]", text, re.MULTILINE))
    assert names(setup["options"]["install_requires"]) == always
    extras = set(re.findall(r"^\| `(\w+)` \| `([\w-]+)` \|", text, re.MULTILINE))
    assert extras == {(extra, name) for extra, entries in setup["options.extras_require"].items()
                      for name in names(entries)}


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_first_own_network_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """Bright cats and dark dogs: easy enough to be learnt in the README's 300 steps."""
    rng = np.random.default_rng(0)
    for folder, light in (("cats", 60), ("dogs", 0)):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(0, 190, (40, 50, 3)) + light
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / folder / f"{number}.jpg")
    pixels = rng.integers(0, 190, (30, 40, 3)) + 60
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / "cats" / "tom.jpg")
    monkeypatch.chdir(tmp_path)
    for text in blocks("prototxt"):
        name = text.partition("\n")[0].removeprefix("# ")
        Path(name).write_text(text)
    lists, *commands = blocks("sh")
    subprocess.run(["bash", "-euo", "pipefail", "-c", lists], check=True)
    assert len(Path("photos/train.txt").read_text().splitlines()) == 101
    for line in "".join(commands).splitlines():
        program, *words = shlex.split(line)
        assert program == "barista"
        assert main(words) == 0, capsys.readouterr().err
    log = capsys.readouterr().err
    found = re.search(r"caffe\.cpp:321\] accuracy = (\S+)", log)
    assert found is not None
    assert float(found[1]) >= 0.9
    [script] = blocks("python")
    exec(compile(script, "README.md", "exec"), {})
    out = capsys.readouterr().out.splitlines()
    assert float(out[0]) < 0.7
    assert out[1] == "(16, 3, 3, 3)"
    assert float(out[2]) == pytest.approx(float(found[1]), abs=1e-6)
    assert out[3] == "cat"
