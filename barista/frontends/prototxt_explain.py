"""What is wrong with a prototxt, in Barista's words and with the nearest known names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from barista.errors import PrototxtError, nearest
from barista.frontends.prototxt_scan import Entry, Problem, Scan, Value
from barista.proto.upgrade import TYPE_OF_V1

_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?f?|inf(inity)?f?|nanf?)", re.IGNORECASE)
_TWICE = re.compile(r'Message type "caffe\.(\w+)" should not have multiple "(\w+)" fields')
_BOOLEANS = ("true", "false", "True", "False", "t", "f", "1", "0")
_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: ("an integer", -2**31, 2**31 - 1),
    FieldDescriptor.TYPE_INT64: ("an integer", -2**63, 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: ("an integer from 0 on", 0, 2**32 - 1),
}


def explain(text: str, scan: Scan, error: Exception, file: str | None, *,
            ignore_unknown_fields: bool = False) -> PrototxtError:
    """Return the error to raise for `text`, which ``text_format`` refused with `error`.

    The first mistake that `scan` shows is taken; failing that, protobuf's own words.
    """
    problems = list(_problems(scan, ignore_unknown_fields))
    if scan.problem is not None:
        problems.append(scan.problem)
    if problems:
        first = min(problems, key=lambda problem: problem.seen)
        return PrototxtError(first.text, file, *scan.position(first.offset))
    line = column = None
    if isinstance(error, text_format.ParseError):
        line, column = error.GetLine(), error.GetColumn()
    if line is None:
        # protobuf gives no place for a value that it cannot store: the last field it can have seen.
        line, column = scan.position(len(text.rstrip()))
    words = re.sub(r"^\d+:\d+ ?: ?('[^']*': )?", "", str(error)).rstrip(".")
    twice = _TWICE.fullmatch(words)
    if twice:
        words = f"{twice[1]}.{twice[2]} is given twice; it can stand there once"
    return PrototxtError(words, file, line, column or 1)


def missing_field(path: str, scan: Scan, descriptor: Descriptor, file: str | None) -> PrototxtError:
    """Return the error for a required field, given by protobuf's path, that the text lacks."""
    *holders, name = path.split(".")
    holder = ".".join(part if part.endswith("]") else f"{part}[0]" for part in holders)
    offset = next((entry.start for entry in scan.entries if entry.path == holder), 0)
    inner: Descriptor | None = descriptor
    for part in holders:
        inner = inner.fields_by_name[part.split("[")[0]].message_type if inner else None
    owner = inner.name if inner else holder
    return PrototxtError(f"{owner} needs the field {name!r}, which is missing", file,
                         *scan.position(offset))


def wrong_kind(scan: Scan, wanted: Descriptor, others: dict[Descriptor, str]) -> str:
    """Say what else the text is, if all its outermost fields are of one of `others`; else ''."""
    names = {entry.name for entry in scan.entries if not entry.outer and entry.message == wanted}
    if names.issubset(_names(wanted)):
        return ""
    return next((kind for other, kind in others.items() if names.issubset(_names(other))), "")


def _problems(scan: Scan, ignore_unknown_fields: bool) -> Iterator[Problem]:
    for entry in scan.entries:
        if entry.known is None:
            if not ignore_unknown_fields:
                yield Problem(_unknown_field(entry), entry.start, entry.start)
            continue
        for value in entry.values:
            wrong = _wrong_value(entry, entry.known, value)
            if wrong:
                yield Problem(wrong, value.offset, value.offset)
        if entry.braces and entry.known.message_type is None:
            yield Problem(f"{_named(entry)} takes {_kind(entry.known)}, not a message in braces; "
                          f"write {entry.name}: value", entry.start, entry.start)


def _unknown_field(entry: Entry) -> str:
    text = f"unknown field {entry.name!r} in {entry.message.name}"
    hint = nearest(entry.name, _names(entry.message))
    if hint:
        return f"{text}; {hint}"
    for outer in reversed(entry.outer):
        if entry.name in outer.fields_by_name:
            return f"{text}; it is a field of {outer.name}: is a '}}' missing before it?"
    inside = [field.name for field in entry.message.fields
              if field.message_type and entry.name in field.message_type.fields_by_name]
    if inside:
        return f"{text}; it is a field of " + _listed(inside)
    return f"{text}, which has " + _listed(sorted(_names(entry.message)))


def _wrong_value(entry: Entry, field: FieldDescriptor, value: Value) -> str:
    """Say why `value` cannot stand in `field`; '' if it can."""
    text, quoted = value.text, value.text[0] in "\"'"
    wrong = f"{_named(entry)} takes {_kind(field)}, not {text if quoted else repr(text)}"
    if field.message_type is not None:
        return f"{wrong}; write {entry.name} {{ ... }}"
    if field.enum_type is not None:
        names = [known.name for known in field.enum_type.values]
        if text in names or _integer(text) in field.enum_type.values_by_number:
            return ""
        return f"{_named(entry)} cannot be {text if quoted else repr(text)}; " \
               + (nearest(text.strip("\"'"), names) or "known are " + _listed(names))
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return "" if quoted else f"{wrong}; write it in quotes: \"{_layer_type(field, text)}\""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "" if text in _BOOLEANS else wrong
    if field.type in _INTEGER_RANGES:
        _, low, high = _INTEGER_RANGES[field.type]
        number = _integer(text)
        if number is None:
            return wrong
        return "" if low <= number <= high else f"{wrong}; the range is {low} to {high}"
    return "" if _FLOAT.fullmatch(text) else wrong


def _integer(text: str) -> int | None:
    """Return the value of a decimal, octal (leading 0) or hexadecimal integer, None if it is none."""
    if not _INTEGER.fullmatch(text):
        return None
    return int(re.sub(r"^(-?)0(?=[0-7])", r"\g<1>0o", text), 0)


def _names(message: Descriptor) -> list[str]:
    # Not the keys of fields_by_name: protobuf 4.21.0 gives its values instead.
    return [field.name for field in message.fields]


def _named(entry: Entry) -> str:
    return f"{entry.message.name}.{entry.name}"


def _layer_type(field: FieldDescriptor, text: str) -> str:
    """The word that was meant where a layer's type is given as old files do (``type: POOLING``)."""
    return TYPE_OF_V1.get(text, text) if field.full_name == "caffe.LayerParameter.type" else text


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return f"a message ({field.message_type.name}) in braces"
    if field.enum_type is not None:
        return "one of " + _listed([known.name for known in field.enum_type.values])
    if field.type in _INTEGER_RANGES:
        return _INTEGER_RANGES[field.type][0]
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return "a string in quotes"
    return "a number"


def _listed(names: list[str], most: int = 12) -> str:
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
