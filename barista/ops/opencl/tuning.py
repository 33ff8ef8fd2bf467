"""How `gemm.cl` is specialised for a device: the parameters, what they may be, and where they are kept.

The first entry that fits is taken: from the user's table, which ``barista tune_gemm`` writes, then
from the one that ships, ``gemm.toml`` beside this file.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError, nearest
from ...resources import cache_folder
from ...runtime.context import Context

SHIPPED = Path(__file__).with_name("gemm.toml")
# What a processor must have for `GemmParameters.avx512`, by the names that Linux gives.
AVX512_FLAGS = frozenset(("avx512f", "avx512vl", "avx512dq", "avx512bw"))


@dataclasses.dataclass(frozen=True)
class GemmParameters:
    """Sizes of the tiles and chunks of a matrix product.

    Parameters
    ----------
    tile_m : rows of a tile
    vector_bytes : bytes of a vector, 16, 32 or 64
    vectors : vectors in a row of a tile
    chunk_k : rows of B that a strip packs at a time
    strip : most columns that a strip has; 0 packs all of B beforehand instead
    avx512 : whether the inner loops use AVX-512
    """

    tile_m: int
    vector_bytes: int
    vectors: int
    chunk_k: int
    strip: int
    avx512: bool = False

    def tile_n(self, dtype: np.dtype[Any]) -> int:
        """Columns of a tile."""
        return self.vector_bytes // dtype.itemsize * self.vectors

    def macros(self, dtype: np.dtype[Any]) -> dict[str, object]:
        """The names under which `gemm.cl` knows them."""
        return {"TILE_M": self.tile_m, "VECTOR": self.vector_bytes // dtype.itemsize, "VECTORS": self.vectors,
                "CHUNK_K": self.chunk_k, "AVX512": int(self.avx512)}

    def problem(self, context: Context, dtype: np.dtype[Any]) -> str:
        """Why they cannot be used on a device, or ''."""
        if self.vector_bytes // dtype.itemsize not in (2, 4, 8, 16):
            return f"vector_bytes={self.vector_bytes} makes no vector of 2, 4, 8 or 16 {dtype}"
        for name, least in (("tile_m", 1), ("vectors", 1), ("chunk_k", 1), ("strip", 0)):
            if getattr(self, name) < least:
                return f"{name}={getattr(self, name)} is below {least}"
        if self.strip % self.tile_n(dtype):
            return f"strip={self.strip} is no multiple of the {self.tile_n(dtype)} columns of a tile"
        if self.strip and not context.is_cpu:
            return f"strip={self.strip}: strips are for CPU devices, where local memory is a core's cache; give 0"
        local_bytes = self.chunk_k * self.strip * dtype.itemsize
        if local_bytes > context.device.local_mem_size:
            return (f"chunk_k={self.chunk_k} times strip={self.strip} needs {local_bytes} bytes of local memory, "
                    f"the device has {context.device.local_mem_size}")
        if self.avx512 and not context.processor_flags >= AVX512_FLAGS:
            return "avx512: the processor does not have " + ", ".join(sorted(AVX512_FLAGS - context.processor_flags))
        return ""

    def __str__(self) -> str:
        whole = f"strips of {self.strip} columns and {self.chunk_k} rows" if self.strip else "packed whole"
        return (f"tiles of {self.tile_m} x {self.vectors} vectors of {self.vector_bytes} bytes, {whole}"
                + (", AVX-512" if self.avx512 else ""))


def user_table() -> Path:
    """The user's own table: ``gemm.toml`` in Barista's folder of the XDG cache."""
    return cache_folder("gemm.toml")


def parameters(context: Context, dtype: np.dtype[Any]) -> GemmParameters:
    """Return the parameters for a device.

    Raises
    ------
    DeviceError : a table cannot be read, or the user's holds parameters that the device cannot have
    """
    own = user_table()
    for entry in _entries(own):
        if entry.get("device") == key(context) and entry.get("dtype") == dtype.name:
            values = _values(entry, own)
            if problem := values.problem(context, dtype):
                raise DeviceError(f"{own}: {problem}; run: barista tune_gemm")
            return values
    for entry in _entries(SHIPPED):
        if entry["kind"] == ("CPU" if context.is_cpu else "other"):
            values = _values(entry, SHIPPED)
            if not values.problem(context, dtype):
                return values
    raise DeviceError(f"{SHIPPED} has no parameters of matrix products that {context.name} can have; "
                      "run: barista tune_gemm")


def keep(context: Context, dtype: np.dtype[Any], values: GemmParameters) -> Path:
    """Write the parameters into the user's table, in place of what it had for the device; returns its path."""
    path = user_table()
    mine = {"device": key(context), "dtype": dtype.name}
    entries = [entry for entry in _entries(path) if {name: entry.get(name) for name in mine} != mine]
    entries.append({**mine, **dataclasses.asdict(values)})
    text = "# Written by barista tune_gemm; delete it to return to the parameters that ship.\n"
    for entry in entries:
        text += "\n[[entry]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in entry.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
    return path


def key(context: Context) -> str:
    """What the user's table knows a device by: name, platform and driver, since each may change what is fast."""
    device = context.device
    return f"{context.name} ({device.platform.name.strip()}, driver {device.driver_version.strip()})"


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a table; none where there is no file."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path} cannot be read ({error}); delete it, or run barista tune_gemm after that") from None
    entries = read.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DeviceError(f"{path}: 'entry' is no array of tables, [[entry]]; delete the file")
    yield from entries


def _values(entry: dict[str, Any], path: Path) -> GemmParameters:
    """The parameters of an entry; everything but what says for which device it is."""
    fields = {field.name: field for field in dataclasses.fields(GemmParameters)}
    given = {name: value for name, value in entry.items() if name not in ("device", "dtype", "kind", "source")}
    for name, value in given.items():
        if name not in fields:
            raise DeviceError(f"{path}: unknown parameter {name!r}; "
                              + (nearest(name, fields) or f"known: {', '.join(fields)}"))
        if type(value) is not (bool if name == "avx512" else int):
            raise DeviceError(f"{path}: {name}={value!r} is no {'truth value' if name == 'avx512' else 'whole number'}")
    if missing := [name for name, field in fields.items()
                   if field.default is dataclasses.MISSING and name not in given]:
        raise DeviceError(f"{path}: an entry lacks {', '.join(missing)}")
    return GemmParameters(**given)
