"""Files of older forms, read to be written again: what they hold now, and whether they were current already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from barista.errors import PrototxtError
from barista.frontends.prototxt import parse_solver, read_net
from barista.proto.caffe_pb2 import NetParameter, SolverParameter

AnyMessage = TypeVar("AnyMessage", bound=Message)


def upgraded_net(path: str | os.PathLike[str], *, ignore_unknown_fields: bool = False) -> tuple[NetParameter, bool]:
    """Read a net, text or binary, in the current form, and tell whether the file has another.

    Raises as `read_net`.
    """
    net = read_net(path, ignore_unknown_fields=ignore_unknown_fields)
    return net, _differs(net, path)


def upgraded_solver(path: str | os.PathLike[str], *,
                    ignore_unknown_fields: bool = False) -> tuple[SolverParameter, bool]:
    """Read the text of a solver in the current form, and tell whether the file has another.

    Unlike `read_solver` it adds nothing that the file does not say, such as a ``snapshot_prefix``.

    Raises
    ------
    PrototxtError : the file cannot be read as text, parsed or upgraded
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PrototxtError(f"cannot be read: {error.strerror}", os.fspath(path)) from error
    except UnicodeDecodeError as error:
        raise PrototxtError("this is no text in UTF-8; give the prototxt of a solver", os.fspath(path)) from error
    solver = parse_solver(text, os.fspath(path), ignore_unknown_fields=ignore_unknown_fields)
    return solver, _differs(solver, path)


def _differs(current: Message, path: str | os.PathLike[str]) -> bool:
    """Whether a file that was read as `current` says it in another form."""
    as_written = _as_written(Path(path).read_bytes(), type(current))
    # Bytes, because numbers that are not numbers never equal themselves.
    return as_written.SerializeToString(deterministic=True) != current.SerializeToString(deterministic=True)


def _as_written(data: bytes, kind: type[AnyMessage]) -> AnyMessage:
    """The message of a file that is known to hold one, as it stands there."""
    message = kind()
    try:
        text = data.decode("utf-8-sig")
        text_format.Parse(text, message, allow_unknown_field=True)
    except (UnicodeDecodeError, text_format.ParseError):
        message.Clear()
        try:
            message.ParseFromString(data)
        except DecodeError:  # read once already: the file is another by now
            message.Clear()
    return message
