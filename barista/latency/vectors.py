"""Files of reference values: read a CSV file of workloads and figures, compute the figures again, list what differs.

There are two formats, told apart by the header: products on Barista's array (`GEMM`) and convolutions on FPGPT's
(`CONVOLUTION`).  Other programs that implement the models can be held against these files, and this one against theirs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, UnsupportedError, nearest
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..hardware.resources import DSP_FLOAT
from .conv_model import COMPONENTS, ConvAssumptions, conv_latency
from .gemm_model import GemmAssumptions, gemm_latency
from .resources import DSP_EVALUATED, Ram, conv_blocks, gemm_bram_bits, gemm_dsp

Figure = int | float

# Seconds agree where they differ by no more than this share: sums in another order, and nothing else.
TOLERANCE = 1e-12
# The files do not say how long the words of a convolution are; they count blocks of 1,024 words, which is what a block
# of 36 Kb holds of float32.
BLOCK = Ram("BRAM36", ((36, 1024),))


@dataclasses.dataclass(frozen=True)
class VectorFormat:
    """Columns of a file of reference values.

    Parameters
    ----------
    name : as messages say it
    inputs : columns that describe the workload: column to reader of a cell
    outputs : columns of figures that follow from it
    compute : figures of a row by column, from its inputs
    """

    name: str
    inputs: Mapping[str, Callable[[str], Any]]
    outputs: Sequence[str]
    compute: Callable[[Mapping[str, Any]], dict[str, Figure]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A figure of a file that is not what is computed.

    Parameters
    ----------
    line : of the file, counted from 1, which is the header
    column : which figure
    given, computed : both values
    """

    line: int
    column: str
    given: Figure
    computed: Figure

    @property
    def relative(self) -> float:
        """(computed - given) / given; infinite where something was given as 0."""
        return (self.computed - self.given) / self.given if self.given else math.inf


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """A file of reference values, as it was read and as it is computed.

    Parameters
    ----------
    path : where it was read
    format : which of the two
    columns : the header
    rows : cells as they were given, by column
    computed : figures by column, for each row
    line_end : how lines of the file end
    """

    path: Path
    format: VectorFormat
    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    computed: Sequence[Mapping[str, Figure]]
    line_end: str = "\n"

    @property
    def compared(self) -> list[str]:
        """The columns of figures that the file has."""
        return [column for column in self.columns if column in self.format.outputs]

    def given(self, row: int, column: str) -> Figure | None:
        """A figure of the file; None where its cell is empty."""
        text = self.rows[row][column].strip()
        return _figure(text, f"{self.path}:{row + 2}: {column}") if text else None

    def differences(self) -> list[Difference]:
        """Figures that are given and differ: whole numbers at all, others by more than `TOLERANCE`."""
        found = []
        for row, computed in enumerate(self.computed):
            for column in self.compared:
                given = self.given(row, column)
                if given is not None and not _agree(given, computed[column]):
                    found.append(Difference(row + 2, column, given, computed[column]))
        return found

    def recomputed(self) -> str:
        """The same file with the figures that are computed; a file without any gets all of them."""
        columns = list(self.columns) + ([] if self.compared else list(self.format.outputs))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator=self.line_end)
        writer.writerow(columns)
        for row, computed in zip(self.rows, self.computed, strict=True):
            writer.writerow(computed[column] if column in computed else row[column] for column in columns)
        return out.getvalue()


def read_vectors(path: str | os.PathLike[str]) -> VectorFile:
    """Read a file of reference values and compute its figures.

    Raises
    ------
    DataError : it is empty, of neither format, or a cell cannot be read; the message gives the line
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text; give a CSV file with a header") from None
    table = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    if not table or not any(table[0]):
        raise DataError(f"{path} is empty; its first line names the columns, see {_columns_hint()}")
    columns = table[0]
    format_ = _sniff(path, columns)
    rows, computed = [], []
    for line, cells in enumerate(table[1:], start=2):
        if not any(cells):
            raise DataError(f"{path}:{line}: the line is empty; remove it")
        if len(cells) != len(columns):
            raise DataError(f"{path}:{line}: {len(cells)} cells under {len(columns)} columns; one is missing or one "
                            "too many")
        row = dict(zip(columns, cells, strict=True))
        inputs = {}
        for column, reader in format_.inputs.items():
            try:
                inputs[column] = reader(row[column])
            except ValueError as error:
                raise DataError(f"{path}:{line}: {column} is {row[column]!r}; {error}") from None
        try:
            computed.append(format_.compute(inputs))
        except UnsupportedError as error:
            raise DataError(f"{path}:{line}: {error}") from None
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has a header and no rows; there is nothing to compare")
    return VectorFile(path, format_, columns, rows, computed, "\r\n" if "\r\n" in text else "\n")


def _sniff(path: Path, columns: Sequence[str]) -> VectorFormat:
    """The format whose inputs the header has."""
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path}:1: the column {repeated[0]!r} comes more than once")
    format_ = max(FORMATS, key=lambda each: len(set(each.inputs) & set(columns)))
    missing = [column for column in format_.inputs if column not in columns]
    if len(missing) == len(format_.inputs):
        raise DataError(f"{path}:1: the header is of neither format; it must have {_columns_hint()}")
    if missing:
        raise DataError(f"{path}:1: a file of {format_.name} needs the columns {', '.join(missing)} too")
    known = (*format_.inputs, *format_.outputs)
    for column in columns:
        if column not in known:
            hint = nearest(column, known) or f"it has {', '.join(known)}"
            raise DataError(f"{path}:1: a file of {format_.name} has no column {column!r}; {hint}")
    return format_


def _columns_hint() -> str:
    return " or ".join(f"{', '.join(each.inputs)} ({each.name})" for each in FORMATS)


def _figure(text: str, where: str) -> Figure:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where} is {text!r}, which is no number") from None


def _agree(given: Figure, computed: Figure) -> bool:
    if isinstance(computed, int):
        return given == computed
    return math.isclose(given, computed, rel_tol=TOLERANCE, abs_tol=0.0)


# ---- the two formats --------------------------------------------------------------------------------------


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("give a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("give a number") from None


def _pass(text: str) -> Pass:
    try:
        return Pass(text)
    except ValueError:
        raise ValueError(f"give one of {', '.join(each.value for each in Pass)}") from None


def _products(row: Mapping[str, Any]) -> dict[str, Figure]:
    tr, tc, tp, bits, s = (row[name] for name in ("Tr", "Tc", "Tp", "word_bits", "S"))
    found = gemm_latency(row["R"], row["C"], row["P"], tr, tc, tp,
                         GemmAssumptions(row["f_hz"], row["mem_bytes_per_s"], row["pcie_bytes_per_s"],
                                         word_bits=bits, partial_sums=s))
    return {"cycles": int(found.compute_cycles), "mem_s": float(found.memory_s), "pcie_s": float(found.pcie_s),
            "kernel_s": float(found.kernel_s), "total_s": float(found.total_s),
            "dsp_V5": int(gemm_dsp(tr, tc, DSP_EVALUATED)), "dsp_V9": int(gemm_dsp(tr, tc, DSP_FLOAT)),
            "bram_bits": int(gemm_bram_bits(tr, tc, tp, bits, s))}


def _convolutions(row: Mapping[str, Any]) -> dict[str, Figure]:
    kernel, stride, pad = ((row[name],) * 2 for name in ("kernel", "stride", "pad"))
    geometry = ConvolutionGeometry(row["batch"], row["in_channels"], row["out_channels"], (row["in_h"], row["in_w"]),
                                   kernel, stride, pad, (1, 1))
    array = geometry, row["pass"], row["X"], row["Y"], ConvAssumptions(band=row["BAND"], reading=row["reading"])
    latency, blocks = conv_latency(*array), conv_blocks(*array, ram=BLOCK)
    return {"Z": int(latency.z), "Z_channel": int(latency.z_channel),
            **{name: int(cycles) for name, cycles in latency.components.items()}, "total": int(latency.total_cycles),
            **{f"blocks_{name}": int(count) for name, count in blocks._asdict().items()}}


GEMM = VectorFormat(
    "products",
    {**dict.fromkeys(("R", "C", "P", "Tr", "Tc", "Tp", "word_bits", "S"), _whole),
     **dict.fromkeys(("f_hz", "mem_bytes_per_s", "pcie_bytes_per_s"), _number)},
    ("cycles", "mem_s", "pcie_s", "kernel_s", "total_s", "dsp_V5", "dsp_V9", "bram_bits"), _products)

CONVOLUTION = VectorFormat(
    "convolutions",
    {**dict.fromkeys(("batch", "in_channels", "out_channels", "kernel", "stride", "pad", "in_h", "in_w"), _whole),
     "pass": _pass, "X": _whole, "Y": _whole, "BAND": _whole, "reading": str},
    ("Z", "Z_channel", *COMPONENTS, "total", "blocks_inp", "blocks_kern", "blocks_out"), _convolutions)

FORMATS = (GEMM, CONVOLUTION)
