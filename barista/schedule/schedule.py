"""The schedule: for each layer and pass of a network the engine, the bitstream, and where im2col runs.

It is a JSON file that people can read and change:

    {
      "format": 1,
      "net": "LeNet",
      "batch": 64,
      "inner_products": "",
      "entries": [
        {"layer": "conv1", "pass": "forward", "engine": "fpga", "bitstream": "fast_16x16x64_fp32", "im2col": "host"},
        {"layer": "conv1", "pass": "grad_weight", "engine": "cpu"},
        {"layer": "conv2", "pass": "forward", "engine": "opencl", "im2col": "device"},
        {"layer": "conv2", "pass": "grad_weight", "engine": "opencl", "im2col": "device", "variant": "taps 6x16"}
      ]
    }

Where `barista explore` chose designs whose names do not say all of them, a field ``designs`` does, by name.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ScheduleError, nearest
from ..gemm.shapes import Pass
from ..hardware.manifest import CALIBRATION, MANIFEST, recognise

FORMAT = 1
CPU, OPENCL, FPGA = "cpu", "opencl", "fpga"
ENGINES = (CPU, OPENCL, FPGA)
# Engine to where it may unroll columns: OpenCL's kernels do so on the device, an FPGA's arrays by their kind.
IM2COL = {CPU: ("host",), OPENCL: ("device",), FPGA: ("host", "device")}

_FIELDS = {"format": int, "net": str, "batch": int, "inner_products": str, "designs": dict, "entries": list}
# What stands for a field that is left out.
_OPTIONAL = {"inner_products": "", "designs": {}}
_ENTRY_FIELDS = ("layer", "pass", "engine", "bitstream", "im2col", "variant")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What computes one pass of one convolution.

    Parameters
    ----------
    layer : the layer's name
    pass_ : which pass of its convolution (a Deconvolution's forward pass is its convolution's grad_input)
    engine : ``cpu``, ``opencl`` or ``fpga``
    bitstream : name of the bitstream for ``fpga``, else ''
    im2col : where columns are unrolled: ``device`` for ``opencl`` and for bitstreams that take whole convolutions,
        else ``host``; '' takes what fits, which for ``fpga`` is known when the bitstream is
    variant : for ``opencl`` which of its kernels computes, '' for the one that it chooses

    Raises
    ------
    ScheduleError : a value that is none of these
    """

    layer: str
    pass_: Pass
    engine: str
    bitstream: str = ""
    im2col: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        who = f"{self.layer} {self.pass_.value}"
        if self.engine not in ENGINES:
            raise ScheduleError(f"{who}: engine {self.engine!r} is not known; choose one of {', '.join(ENGINES)}")
        places = IM2COL[self.engine]
        if self.im2col not in ("", *places):
            raise ScheduleError(f"{who}: im2col {self.im2col!r} does not go with engine {self.engine}, which unrolls "
                                f"columns on the {' or '.join(places)}; give {' or '.join(map(repr, places))} or leave "
                                "it out")
        if len(places) == 1:
            object.__setattr__(self, "im2col", places[0])
        if (self.engine == FPGA) != bool(self.bitstream):
            raise ScheduleError(f"{who}: engine fpga takes the name of a bitstream and others take none; "
                                f"got engine {self.engine!r} and bitstream {self.bitstream!r}")
        if self.variant and self.engine != OPENCL:
            raise ScheduleError(f"{who}: variant {self.variant!r} is for engine {OPENCL}, not for {self.engine}; "
                                "leave it out")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The plan of one network.

    Parameters
    ----------
    net : name of the network
    batch : images a batch of its training net; test nets may have any batch
    entries : one a layer and pass
    inner_products : name of the bitstream that computes inner products, '' for the CPU
    designs : name of a bitstream to the design that it is to be built of, as ``barista.synthesis`` reads it
    source : the file that it came from, for messages

    Raises
    ------
    ScheduleError : two entries for one layer and pass, or a batch below 1
    """

    net: str
    batch: int
    entries: tuple[Entry, ...]
    inner_products: str = ""
    designs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = dataclasses.field(default="schedule", compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ScheduleError(f"{self.source}: batch {self.batch}; give 1 or more")
        seen: set[tuple[str, Pass]] = set()
        for entry in self.entries:
            if (entry.layer, entry.pass_) in seen:
                raise ScheduleError(f"{self.source}: two entries for {entry.layer} {entry.pass_.value}; leave one")
            seen.add((entry.layer, entry.pass_))

    @property
    def bitstreams(self) -> list[str]:
        """Names of all bitstreams, in the order of first use."""
        names = [entry.bitstream for entry in self.entries] + [self.inner_products]
        return list(dict.fromkeys(name for name in names if name))

    def on(self, engine: str) -> Schedule:
        """The entries of one engine alone."""
        return dataclasses.replace(self, entries=tuple(entry for entry in self.entries if entry.engine == engine))

    def check(self, net: str, batch: int | None) -> None:
        """Hold the schedule against a network.

        Parameters
        ----------
        batch : of a training net; None for one that may have any

        Raises
        ------
        ScheduleError : another network, or another batch
        """
        if net != self.net:
            raise ScheduleError(f"{self.source} is a schedule of net {self.net!r}, this net is {net!r}; give the "
                                "schedule that was made for it, or none")
        if batch is not None and batch != self.batch:
            raise ScheduleError(f"{self.source} was made for a batch of {self.batch}, this net has {batch}; set "
                                f"batch_size: {self.batch}, or make a schedule for {batch}")

    def passes(self, layer: str) -> dict[Pass, Entry]:
        """The entries of one layer.

        Raises
        ------
        ScheduleError : there are none
        """
        found = {entry.pass_: entry for entry in self.entries if entry.layer == layer}
        if not found:
            hint = nearest(layer, {entry.layer for entry in self.entries})
            raise ScheduleError(f"{self.source} has no entry for layer {layer!r}; " + (f"{hint} " if hint else "")
                                + "every convolution needs one for each pass that it runs")
        return found

    # ---- files ------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schedule:
        """Read a file.

        Raises
        ------
        ScheduleError : it cannot be read, or is no schedule
        """
        name = os.fspath(path)
        try:
            text = Path(name).read_text(encoding="utf-8")
            data = json.loads(text)
        except OSError as error:
            raise ScheduleError(f"{name}: the schedule cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ScheduleError(f"{name} is no schedule: it is not text") from None
        except json.JSONDecodeError as error:
            raise ScheduleError(f"{name}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from None
        kind = recognise(text)
        if kind in (MANIFEST, CALIBRATION):
            raise ScheduleError(f"{name} is a {kind}, no schedule; give a file that `barista plan` wrote")
        return cls.from_json(data, name)

    @classmethod
    def from_json(cls, data: Any, source: str = "schedule") -> Schedule:
        """Make a schedule of what `to_json` gives.

        Raises
        ------
        ScheduleError : unknown, missing or malformed fields
        """
        fields = _checked(data, _FIELDS, source)
        missing = [name for name in _FIELDS if name not in fields and name not in _OPTIONAL]
        if missing:
            raise ScheduleError(f"{source}: the field(s) {', '.join(missing)} are missing")
        for name, kind in _FIELDS.items():
            value = fields.get(name, _OPTIONAL.get(name))
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ScheduleError(f"{source}: {name} {value!r} is not of the type {kind.__name__}")
        if fields["format"] != FORMAT:
            raise ScheduleError(f"{source} has format {fields['format']}; this version reads format {FORMAT}")
        entries = tuple(_entry(item, f"{source}: entry {index}") for index, item in enumerate(fields["entries"]))
        return cls(fields["net"], fields["batch"], entries, fields.get("inner_products", ""),
                   fields.get("designs", {}), source)

    def to_json(self) -> dict[str, Any]:
        """The schedule as the JSON file has it."""
        entries = []
        for entry in self.entries:
            row = {"layer": entry.layer, "pass": entry.pass_.value, "engine": entry.engine}
            if entry.engine == FPGA:
                row["bitstream"] = entry.bitstream
            if entry.engine != CPU and entry.im2col:
                row["im2col"] = entry.im2col
            if entry.variant:
                row["variant"] = entry.variant
            entries.append(row)
        designs = {"designs": dict(self.designs)} if self.designs else {}
        return {"format": FORMAT, "net": self.net, "batch": self.batch, "inner_products": self.inner_products,
                **designs, "entries": entries}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, an entry a line.

        Raises
        ------
        ScheduleError : it cannot be written
        """
        data = self.to_json()
        rows = ",\n".join(f"    {json.dumps(row)}" for row in data.pop("entries"))
        head = json.dumps(data, indent=2).removesuffix("\n}")
        try:
            Path(path).write_text(f'{head},\n  "entries": [\n{rows}\n  ]\n}}\n', encoding="utf-8")
        except OSError as error:
            raise ScheduleError(f"{os.fspath(path)}: the schedule cannot be written: {error.strerror}") from None


def _checked(data: Any, known: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ScheduleError(f"{where} is no JSON object with the fields {', '.join(known)}")
    for name in data:
        if name not in known:
            hint = nearest(name, known) or f"known: {', '.join(known)}"
            raise ScheduleError(f"{where}: there is no field {name!r}; {hint}")
    return data


def _entry(data: Any, where: str) -> Entry:
    fields = _checked(data, _ENTRY_FIELDS, where)
    for name, value in fields.items():
        if not isinstance(value, str):
            raise ScheduleError(f"{where}: {name} {value!r} is no text")
    for name in ("layer", "pass", "engine"):
        if name not in fields:
            raise ScheduleError(f"{where}: the field {name} is missing")
    names = [pass_.value for pass_ in Pass]
    if fields["pass"] not in names:
        hint = nearest(fields["pass"], names) or f"choose one of {', '.join(names)}"
        raise ScheduleError(f"{where}: pass {fields['pass']!r} is not known; {hint}")
    try:
        return Entry(fields["layer"], Pass(fields["pass"]), fields["engine"], fields.get("bitstream", ""),
                     fields.get("im2col", ""), fields.get("variant", ""))
    except ScheduleError as error:
        raise ScheduleError(f"{where}: {error}") from None
