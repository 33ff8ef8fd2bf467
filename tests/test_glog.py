"""Log lines: glog's form, levels, and progress bars on the same stream."""

from __future__ import annotations

import io
import logging
import re

import pytest
from tqdm import tqdm

from barista.errors import BaristaError
from barista.glog import init_log

LINE = re.compile(r"^(?P<level>[IWEF])(?P<date>\d{8}) (?P<time>\d\d:\d\d:\d\d\.\d{6}) +(?P<thread>\d+) "
                  r"(?P<origin>[\w.]+:\d+)\] (?P<text>.*)$")

logger = logging.getLogger("barista.test_glog")


def written(*records: tuple[int, str, dict[str, str]], level: str | int = "debug") -> list[str]:
    """Log the records and return the lines that came out."""
    stream = io.StringIO()
    init_log(level, stream)
    for number, text, extra in records:
        logger.log(number, text, extra=extra)
    return stream.getvalue().splitlines()


def test_a_line_has_glogs_form_and_caffes_origin() -> None:
    [line] = written((logging.INFO, "Iteration 0, lr = 0.01", {"origin": "sgd_solver.cpp:112"}))
    match = LINE.match(line)
    assert match is not None
    assert match["level"] == "I"
    assert match["origin"] == "sgd_solver.cpp:112"
    assert match["text"] == "Iteration 0, lr = 0.01"


def test_without_an_origin_the_python_place_stands_there() -> None:
    [line] = written((logging.INFO, "hello", {}))
    match = LINE.match(line)
    assert match is not None
    assert match["origin"].startswith("test_glog.py:")


@pytest.mark.parametrize(("level", "letter"), [
    (logging.DEBUG, "I"), (logging.INFO, "I"), (logging.WARNING, "W"), (logging.ERROR, "E"),
    (logging.CRITICAL, "F")])
def test_level_letters(level: int, letter: str) -> None:
    [line] = written((level, "text", {}))
    assert line[0] == letter


def test_further_lines_of_a_message_stand_bare() -> None:
    lines = written((logging.INFO, "Initializing solver from parameters: \nbase_lr: 0.01\nmomentum: 0.9", {}))
    assert LINE.match(lines[0])
    assert lines[1:] == ["base_lr: 0.01", "momentum: 0.9"]


def test_a_traceback_follows_its_line() -> None:
    stream = io.StringIO()
    init_log("info", stream)
    try:
        raise ValueError("the cause")
    except ValueError:
        logger.exception("it failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("] it failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: the cause"


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1),
                                              (0, 3), (1, 2), (2, 1), (3, 0)])
def test_levels_hide_what_lies_below(level: str | int, shown: int) -> None:
    numbers = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert len(written(*((number, "text", {}) for number in numbers), level=level)) == shown


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    init_log("info", first)
    init_log("info", second)
    logger.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize("level", ["wrning", 7, -1])
def test_an_unknown_level_is_refused(level: str | int) -> None:
    with pytest.raises(BaristaError, match=r"level .* not known; choose one of debug, info, warning, error"):
        init_log(level)


def test_a_line_and_a_bar_do_not_tear_each_other() -> None:
    stream = io.StringIO()
    init_log("info", stream)
    with tqdm(total=10, file=stream, miniters=1, mininterval=0) as bar:
        for count in range(10):
            logger.info("line %d", count)
            bar.update(1)
    text = stream.getvalue()
    for count in range(10):
        # A whole line begins at the first column: after a newline or a carriage return, and ends alone.
        assert re.search(rf"(?:^|[\r\n])I\d{{8}} [^\r\n]*\] line {count}\n", text)
