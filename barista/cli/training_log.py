"""Reading the log of a training run, Barista's or Caffe's own.

The rows are those of Caffe's ``parse_log``: one for each time that the outputs of the training net or of a test net
were printed. A date is a month and a day in glog's older form (``I1121``) and has the year before it in the newer one.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from datetime import datetime

from ..errors import DataError

_STAMP = re.compile(r"[IWEF](\d{4})?(\d\d)(\d\d) +(\d\d):(\d\d):(\d\d)(\.\d{1,6})?\b")
_NUMBER = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf))"
_ITERATION = re.compile(r"Iteration (\d+)")
_LOSS = re.compile(rf"Iteration \d+(?: \([^)]*\))?, loss = {_NUMBER}")
_RATE = re.compile(rf"lr = {_NUMBER}")
_TEST_NET = re.compile(r"Testing net \(#(\d+)\)")
_OUTPUT = re.compile(rf"(Train|Test) net output #(\d+): (\S+) = {_NUMBER}( \(\* .* loss\))?")


@dataclasses.dataclass
class Row:
    """What one net put out at one time.

    Attributes
    ----------
    iteration : of the training
    seconds : since the training began
    rate : the learning rate that was printed last; Caffe: that of the row before, since outputs come first
    outputs : name and value of each output, in order; the numbers of one output have ``name[i]`` entries
    losses : which of them are part of the loss
    net : number of the test net; 0 for the training net
    """

    iteration: int
    seconds: float
    rate: float
    outputs: dict[str, float] = dataclasses.field(default_factory=dict)
    losses: set[str] = dataclasses.field(default_factory=set)
    net: int = 0


@dataclasses.dataclass(frozen=True)
class Point:
    """A number that was printed at one time.

    Attributes
    ----------
    iteration, seconds : as for `Row`
    value : the number
    """

    iteration: int
    seconds: float
    value: float


@dataclasses.dataclass
class TrainingLog:
    """A training run, as its log tells it.

    Attributes
    ----------
    path : the file
    train, test : the outputs of the training net and of the test nets
    losses : the loss that was displayed, averaged over ``average_loss`` iterations
    rates : the learning rate, at its own iterations
    """

    path: str
    train: list[Row] = dataclasses.field(default_factory=list)
    test: list[Row] = dataclasses.field(default_factory=list)
    losses: list[Point] = dataclasses.field(default_factory=list)
    rates: list[Point] = dataclasses.field(default_factory=list)


def read_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read the log of a training run; of a run that goes on, what is there so far.

    A last row that is not complete is left out.

    Raises
    ------
    DataError : the file cannot be read, or no net prints an output in it
    """
    log = TrainingLog(os.fspath(path))
    iteration, rate, net = -1, math.nan, 0
    for seconds, text in _dated(log.path):
        if found := _ITERATION.search(text):
            iteration = int(found[1])
        if iteration < 0:
            continue
        if found := _TEST_NET.search(text):
            net = int(found[1])
        if found := _RATE.search(text):
            rate = float(found[1])
            log.rates.append(Point(iteration, seconds, rate))
        if found := _LOSS.search(text):
            log.losses.append(Point(iteration, seconds, float(found[1])))
        if found := _OUTPUT.search(text):
            phase, index, name, value, is_loss = found.groups()
            rows, of = (log.train, 0) if phase == "Train" else (log.test, net)
            if int(index) == 0 or not rows or (rows[-1].iteration, rows[-1].net) != (iteration, of):
                rows.append(Row(iteration, seconds, rate, net=of))
            _add(rows[-1], name, float(value), bool(is_loss))
    for rows in (log.train, log.test):
        _finish(rows, log.rates)
    if not log.train and not log.test:
        raise DataError(f"{log.path}: no line of a training run is in it, such as `Iteration 100, loss = 0.3` and "
                        "`Train net output #0: loss = 0.3`; give the log of `barista train` or `caffe train`, its "
                        "standard error: barista train --solver solver.prototxt 2> train.log")
    return log


def _dated(path: str) -> Iterator[tuple[float, str]]:
    """Each line that has a date, with the seconds since the training began; they never run backwards."""
    start: datetime | None = None
    solving, month, year, seconds = False, 0, 0, 0.0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for text in file:
                found = _STAMP.search(text)
                if found is None:
                    continue
                if found[1] is not None:
                    year = int(found[1])
                elif not year:
                    year = datetime.fromtimestamp(os.path.getmtime(path)).year
                elif int(found[2]) < month:
                    year += 1
                month = int(found[2])
                time = _time(found, year)
                if time is None:
                    continue
                year = time.year
                if start is None or (not solving and "Solving" in text):
                    start, seconds = time, 0.0
                solving = solving or "Solving" in text
                seconds = max(seconds, (time - start).total_seconds())
                yield seconds, text
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _time(found: re.Match[str], year: int) -> datetime | None:
    """The time of a stamp; None for one that is none. A 29 February without a year belongs to a leap year."""
    month, day, hour, minute, second = (int(found[group]) for group in range(2, 7))
    microsecond = round(1e6 * float(found[7] or 0))
    for past in range(8 if (month, day) == (2, 29) and found[1] is None else 1):
        try:
            return datetime(year - past, month, day, hour, minute, second, min(microsecond, 999_999))
        except ValueError:
            continue
    return None


def _add(row: Row, name: str, value: float, is_loss: bool) -> None:
    """Add an output to a row; Caffe's own tool keeps the last of several numbers of one name."""
    if name in row.outputs:  # the second: name the first one anew, in its place
        row.outputs = {f"{name}[0]" if key == name else key: old for key, old in row.outputs.items()}
        row.losses = {f"{name}[0]" if key == name else key for key in row.losses}
    count = sum(re.fullmatch(rf"{re.escape(name)}\[\d+\]", key) is not None for key in row.outputs)
    entry = f"{name}[{count}]" if count else name
    row.outputs[entry] = value
    if is_loss:
        row.losses.add(entry)


def _finish(rows: list[Row], rates: list[Point]) -> None:
    """Leave out a last row that is not complete, and give the first row the rate that is printed after it."""
    if rows:
        before = next((row for row in rows[:-1] if row.net == rows[-1].net), None)
        if before is not None and rows[-1].outputs.keys() < before.outputs.keys():
            rows.pop()
    if rows and math.isnan(rows[0].rate):
        later = next((row.rate for row in rows[1:] if not math.isnan(row.rate)), math.nan)
        rows[0].rate = later if rows[1:] else rates[0].value if rates else math.nan
