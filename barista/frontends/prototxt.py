"""Caffe's own formats: nets and solvers as text (prototxt) or binary (caffemodel); Caffe2's nets are files alike.

Whatever is read of Caffe's comes upgraded to the current form (`barista.proto.upgrade`).
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
from collections.abc import Callable, Iterator, MutableSequence
from pathlib import Path
from typing import Any, TypeVar, cast

from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from barista.errors import PrototxtError, nearest
from barista.frontends.prototxt_explain import explain, missing_field, wrong_kind
from barista.frontends.prototxt_scan import Scan
from barista.proto.caffe2_pb2 import NetDef
from barista.proto.caffe_pb2 import BlobProto, Datum, NetParameter, SolverParameter, SolverState
from barista.proto.upgrade import upgrade_net, upgrade_solver
from barista.proto.wire import parse

logger = logging.getLogger(__name__)

AnyMessage = TypeVar("AnyMessage", bound=Message)
PathLike = str | os.PathLike[str]

# protobuf's limit for one message, in every implementation.
LARGEST_MESSAGE_BYTES = 2**31 - 1

# Messages in braces that a text may hold (a net of 1,000 layers has about 25,000): each takes up to 600 bytes.
MOST_MESSAGES = 100_000
# Texts beyond these sizes are parsed, but mistakes in them are told in protobuf's words: pointing at them takes memory
# of many times the text.
EXPLAINED_BYTES, EXPLAINED_FIELDS = 2 * 2**20, 100_000

_KINDS: dict[type[Message], str] = {
    NetParameter: "a net (NetParameter)",
    SolverParameter: "a solver (SolverParameter)",
    SolverState: "a training state (SolverState)",
    NetDef: "a net of Caffe2 (NetDef)",
    BlobProto: "a single blob, such as a mean image (BlobProto)",
    Datum: "a single image (Datum)",
}
# A binary file is taken for a message of a type only if one of these is in it
# (not train_net: it has the number and the type of a net's name).
_SIGNS: dict[type[Message], tuple[str, ...]] = {
    NetParameter: ("layer", "layers"),
    SolverParameter: ("net", "net_param", "train_net_param", "max_iter", "base_lr"),
    SolverState: ("iter", "learned_net", "history"),
    NetDef: ("op",),
    BlobProto: ("data", "double_data"),
    Datum: ("data", "float_data", "label"),
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def read_net(path: PathLike, *, ignore_unknown_fields: bool = False) -> NetParameter:
    """Read a net, text or binary: which of the two, its bytes tell.

    Parameters
    ----------
    path : a prototxt or a caffemodel
    ignore_unknown_fields
        skip the fields of a text that Caffe does not know, with one warning for each name

    Raises
    ------
    PrototxtError : the file cannot be read, parsed or upgraded; with line and column for text
    """
    net = _read(path, NetParameter, ignore_unknown_fields)
    upgrade_net(net, str(path))
    return net


def read_binary_net(path: PathLike) -> NetParameter:
    """Read a net with its weights from a binary file (caffemodel).

    Raises
    ------
    PrototxtError
        the file is missing, truncated, of 2 GiB or more, or holds something else
    """
    data = _read_bytes(path, NetParameter)
    if _decoded(data, str(path)) is not None:
        raise PrototxtError("this is text, such as a prototxt, not weights; were model and weights exchanged?",
                            str(path))
    net = _parse_binary(data, NetParameter, str(path))
    upgrade_net(net, str(path))
    return net


def read_solver(path: PathLike, *, ignore_unknown_fields: bool = False) -> SolverParameter:
    """Read a solver definition, text or binary: which of the two, its bytes tell.

    Caffe: a missing ``snapshot_prefix`` becomes the solver's own path without its
    extension; one that is a folder is joined with the solver's name.

    Parameters
    ----------
    path : a prototxt or a binary SolverParameter
    ignore_unknown_fields
        skip the fields of a text that Caffe does not know, with one warning for each name

    Raises
    ------
    PrototxtError : the file cannot be read, parsed or upgraded; with line and column for text
    """
    solver = _read(path, SolverParameter, ignore_unknown_fields)
    upgrade_solver(solver, str(path))
    own = Path(path).with_suffix("")
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(own)
        logger.info("%s: snapshot_prefix is not given; taking %r", path, solver.snapshot_prefix)
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, own.name)
        logger.info("%s: snapshot_prefix is a folder; taking %r", path, solver.snapshot_prefix)
    return solver


def read_net_def(path: PathLike) -> NetDef:
    """Read one of the two nets of a Caffe2 model, text or binary: which of the two, its bytes tell.

    Raises
    ------
    PrototxtError : the file cannot be read or parsed; with line and column for text
    """
    return _read(path, NetDef, False)


def parse_net(text: str, source: str = "<text>", *, ignore_unknown_fields: bool = False) -> NetParameter:
    """Return the net that `text` defines; `source` names it in messages. Raises as `read_net`."""
    net = _parse_text(text, NetParameter, source, ignore_unknown_fields)
    upgrade_net(net, source)
    return net


def parse_solver(text: str, source: str = "<text>", *,
                 ignore_unknown_fields: bool = False) -> SolverParameter:
    """Return the solver that `text` defines; `source` names it in messages. Raises as `read_solver`."""
    solver = _parse_text(text, SolverParameter, source, ignore_unknown_fields)
    upgrade_solver(solver, source)
    return solver


def to_text(message: Message) -> str:
    """Return `message` as Caffe prints it.

    Two spaces a level, fields in the order of their numbers, each number as short
    as it can be without changing the float32 that is read back.
    """
    return "".join(f"{line}\n" for line in _lines(message, ""))


def write_text(message: Message, path: PathLike) -> None:
    """Write `message` to `path` in the layout of `to_text`.

    Raises
    ------
    PrototxtError : the file cannot be written
    """
    try:
        Path(path).write_text(to_text(message), encoding="ascii")
    except OSError as error:
        raise PrototxtError(f"cannot be written: {error.strerror}", str(path)) from error


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, content in message.ListFields():
        for value in content if isinstance(content, MutableSequence) else (content,):
            if field.message_type is not None:
                yield f"{indent}{field.name} {{"
                yield from _lines(value, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_scalar(field, value)}"


def _scalar(field: FieldDescriptor, value: str | bytes | bool | int | float) -> str:
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return f'"{text_encoding.CEscape(data, as_utf8=False)}"'
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(int(value))
        return known.name if known else str(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _shortest(float(value), range(6, 10), lambda short: ctypes.c_float(short).value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _shortest(float(value), range(15, 18), float)
    return str(value)


def _shortest(value: float, digits: range, rounded: Callable[[float], float]) -> str:
    """Return `value` in the fewest of `digits` that give it back (NaN never equals itself)."""
    for count in digits:
        text = f"{value:.{count}g}"
        if rounded(float(text)) == value:
            break
    return text


def _read(path: PathLike, kind: type[AnyMessage], ignore_unknown_fields: bool) -> AnyMessage:
    data = _read_bytes(path, kind)
    text = _decoded(data, str(path))
    if text is None:
        return _parse_binary(data, kind, str(path))
    return _parse_text(text, kind, str(path), ignore_unknown_fields)


def _read_bytes(path: PathLike, kind: type[Message]) -> bytes:
    """Return the bytes of a file that holds a message of type `kind`."""
    name, place = str(path), Path(path)
    try:
        size_bytes = place.stat().st_size
        data = place.read_bytes() if size_bytes <= LARGEST_MESSAGE_BYTES else b""
    except FileNotFoundError as error:
        siblings = os.listdir(place.parent) if place.parent.is_dir() else []
        hint = nearest(place.name, siblings) if siblings else f"there is no folder {str(place.parent)!r}"
        raise PrototxtError(f"no such file (looked from {os.getcwd()!r})" + (f"; {hint}" if hint else ""),
                            name) from error
    except IsADirectoryError as error:
        raise PrototxtError(f"this is a folder; give a file with {_KINDS[kind]}", name) from error
    except (OSError, ValueError) as error:
        raise PrototxtError(f"cannot be read: {error}", name) from error
    if size_bytes > LARGEST_MESSAGE_BYTES:
        raise PrototxtError(f"the file has {size_bytes} bytes; protobuf reads less than 2 GiB "
                            f"({LARGEST_MESSAGE_BYTES} bytes at most); keep such weights in HDF5", name)
    if not data:
        raise PrototxtError(f"the file is empty; expected {_KINDS[kind]}", name)
    return data


def _decoded(data: bytes, name: str) -> str | None:
    """Return `data` as text, None if it is binary; an error if it is text in another encoding."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PrototxtError("the text is UTF-16; save it as UTF-8", name)
    if _CONTROL.search(data):
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        raise PrototxtError(
            f"neither text nor binary: byte 0x{data[error.start]:02x} is not UTF-8, and there is no binary "
            "message; save the text as UTF-8", name, data.count(b"\n", 0, error.start) + 1,
            len(data[start:error.start].decode("utf-8", "replace")) + 1) from error


def _parse_text(text: str, kind: type[AnyMessage], source: str, ignore_unknown_fields: bool) -> AnyMessage:
    message, parsed = kind(), text
    messages = text.count("{") + text.count("<")
    if messages > MOST_MESSAGES:
        raise PrototxtError(f"the text opens {messages} messages with '{{' or '<'; the limit is {MOST_MESSAGES}",
                            source)
    if ignore_unknown_fields:
        if not _explainable(text):
            raise PrototxtError(f"unknown fields can be ignored in texts of up to {EXPLAINED_BYTES // 2**20} MiB and "
                                f"{EXPLAINED_FIELDS} fields; this one has {len(text)} characters and {text.count(':')} "
                                "fields. Take the unknown fields out", source)
        scan = _scan(text, kind)
        _refuse_other_kind(scan, kind, source)
        parsed = _without_unknown(text, scan, source)
    try:
        # Line by line: a list of all lines takes many times the text.
        lines = (line.rstrip("\n") for line in io.StringIO(parsed, newline="\n"))
        text_format.ParseLines(lines, message)  # type: ignore[attr-defined, unused-ignore]  # stubs lack it
    except (text_format.ParseError, ValueError, TypeError) as error:
        if not _explainable(text):
            raise PrototxtError(str(error).rstrip("."), source) from None
        _refuse_other_kind(_scan(text, kind), kind, source)
        raise explain(parsed, _scan(parsed, kind), error, source,
                      ignore_unknown_fields=ignore_unknown_fields) from None
    missing = _missing(message)
    if missing and not _explainable(text):
        raise PrototxtError(f"the required field {missing[0]} is missing", source)
    if missing:
        raise missing_field(missing[0], _scan(parsed, kind), _descriptor(kind), source)
    if not message.ListFields():
        raise PrototxtError(f"no field is set; expected {_KINDS[kind]}", source)
    return message


def _explainable(text: str) -> bool:
    return len(text) <= EXPLAINED_BYTES and text.count(":") <= EXPLAINED_FIELDS


def _scan(text: str, kind: type[Message]) -> Scan:
    return Scan(text, _descriptor(kind))


def _descriptor(kind: type[Message]) -> Descriptor:
    return cast(Descriptor, kind.DESCRIPTOR)


def _missing(message: Any) -> list[str]:
    """Return the paths of the required fields that `message` lacks (a method that typeshed does not list)."""
    paths: list[str] = message.FindInitializationErrors()
    return paths


def _refuse_other_kind(scan: Scan, kind: type[Message], source: str) -> None:
    others = {_descriptor(other): name for other, name in _KINDS.items() if other is not kind}
    other = wrong_kind(scan, _descriptor(kind), others)
    if other:
        raise PrototxtError(f"this is {other}, where {_KINDS[kind]} is expected", source, 1, 1)


def _without_unknown(text: str, scan: Scan, source: str) -> str:
    """Return `text` with blanks for the fields that no message knows; warn of each name once."""
    places: dict[str, list[int]] = {}
    pieces, done = [], 0
    for entry in scan.entries:
        if entry.known is None and scan.problem is None:
            pieces += [text[done:entry.start], re.sub(r"[^\n]", " ", text[entry.start:entry.end])]
            done = entry.end
            places.setdefault(f"{entry.message.name}.{entry.name}", []).append(
                scan.position(entry.start)[0])
    for name, lines in places.items():
        more = f" (and {len(lines) - 1} times more)" if len(lines) > 1 else ""
        logger.warning("%s:%d: unknown field %s is ignored%s", source, lines[0], name, more)
    return "".join(pieces) + text[done:]


def _parse_binary(data: bytes, kind: type[AnyMessage], name: str) -> AnyMessage:
    """Return the message of type `kind` that `data` holds; name what it is if it is another."""
    if data.startswith(b"\x89HDF\r\n"):
        raise PrototxtError("this is an HDF5 file, not a protobuf message; read it as HDF5 weights", name)
    message = kind()
    try:
        message = parse(data, kind)
        fault = _fault(message)
    except (DecodeError, ValueError) as error:
        fault = f"protobuf says {str(error).rstrip('.')!r}"
    unknown = [] if fault else list(dict.fromkeys(_unknown(message)))
    if fault or unknown:
        other = next((text for other, text in _KINDS.items() if other is not kind and _fits(data, other)), "")
        if other:
            raise PrototxtError(f"this is {other}, where {_KINDS[kind]} is expected", name)
    if fault:
        raise PrototxtError(f"neither text nor binary with {_KINDS[kind]}, or damaged or truncated: {fault}",
                            name)
    if unknown:
        logger.warning("%s: fields that %s does not know are ignored: %s", name,
                       "Caffe" if kind is not NetDef else "this reader of Caffe2's nets", ", ".join(unknown))
    return message


def _fits(data: bytes, kind: type[Message]) -> bool:
    """Tell whether `data` is a message of type `kind` with nothing unknown in it."""
    try:
        message = parse(data, kind)
    except (DecodeError, ValueError):
        return False
    return not _fault(message) and not any(_unknown(message))


def _fault(message: Message) -> str:
    """Say what a parsed binary message lacks or has wrong; '' if nothing."""
    missing = _missing(message)
    if missing:
        return f"the required field {missing[0]} is missing"
    signs = _SIGNS[type(message)]
    if not any(field.name in signs for field, _ in message.ListFields()):
        return "it has none of the fields " + ", ".join(signs)
    broken = next(_undecodable(message, ""), None)
    return f"the string {broken} is not UTF-8" if broken else ""


def _undecodable(message: Message, path: str) -> Iterator[str]:
    """Give the path of each string that is not UTF-8: protobuf hands those out as bytes."""
    for field, content in message.ListFields():
        values = content if isinstance(content, MutableSequence) else (content,)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from (f"{path}{field.name}" for value in values if isinstance(value, bytes))
        elif field.message_type is not None and field.message_type != BlobProto.DESCRIPTOR:
            for index, value in enumerate(values):
                yield from _undecodable(value, f"{path}{field.name}[{index}].")


def _unknown(message: Message) -> Iterator[str]:
    """Give the message and number of each unknown field; weights are not looked into."""
    unknown = UnknownFieldSet(message)
    yield from (f"{type(message).__name__} {unknown[index].field_number}" for index in range(len(unknown)))
    for field, content in message.ListFields():
        if field.message_type is not None and field.message_type != BlobProto.DESCRIPTOR:
            for value in content if isinstance(content, MutableSequence) else (content,):
                yield from _unknown(value)
