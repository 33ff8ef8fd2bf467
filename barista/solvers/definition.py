"""A solver's definition: from a file or a message, with fields replaced, upgraded and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from ..errors import SolverError, nearest
from ..frontends.prototxt import read_solver
from ..proto.caffe_pb2 import SolverParameter
from ..proto.upgrade import upgrade_solver

# The least value of the numbers that no other part checks.
_LEAST = {"average_loss": 1, "iter_size": 1, "display": 0, "snapshot": 0, "test_interval": 0, "max_iter": 0}


def read_definition(param: SolverParameter | str | os.PathLike[str],
                    overrides: Mapping[str, Any],
                    ignore_unknown_fields: bool = False,
                    folder: str | None = None) -> tuple[SolverParameter, str | None]:
    """Return a solver's definition, a copy, and the folder in which its files may lie too.

    Parameters
    ----------
    overrides : fields of SolverParameter to replace; None clears one
    ignore_unknown_fields : skip what a fork added to the file, with a warning
    folder : given back where it is not None; otherwise that of the file, None for a message

    Raises
    ------
    PrototxtError : the file cannot be read
    SolverError : an unknown field, or a value that does not fit
    """
    if isinstance(param, SolverParameter):
        result = SolverParameter()
        result.CopyFrom(param)
        upgrade_solver(result)
    else:
        result = read_solver(os.fspath(param), ignore_unknown_fields=ignore_unknown_fields)
        folder = folder if folder is not None else os.path.dirname(os.fspath(param))
    for name, value in overrides.items():
        _replace(result, name, value)
    for name, least in _LEAST.items():
        if getattr(result, name) < least:
            raise SolverError(f"{name} {getattr(result, name)}: give {least} or more")
    return result, folder


def _replace(param: SolverParameter, name: str, value: Any) -> None:
    field = SolverParameter.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        hint = nearest(name, [f.name for f in SolverParameter.DESCRIPTOR.fields])
        raise SolverError(f"a solver has no field {name!r}" + (f"; {hint}" if hint else ""))
    param.ClearField(name)
    if value is None:
        return
    if field.enum_type is not None and isinstance(value, str):
        known = {entry.name: entry.number for entry in field.enum_type.values}
        if value not in known:
            raise SolverError(f"{name} {value!r} is not known; choose one of {', '.join(known)}")
        value = known[value]
    try:
        if isinstance(value, Message):
            getattr(param, name).CopyFrom(value)
        elif isinstance(value, list | tuple):
            getattr(param, name).extend(value)
        else:
            setattr(param, name, os.fspath(value) if isinstance(value, os.PathLike) else value)
    except (TypeError, ValueError, AttributeError) as error:
        raise SolverError(f"{name}: {value!r} does not fit this field ({error})") from None
