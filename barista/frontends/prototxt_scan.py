"""Where each field of a prototxt stands, for messages that point at it.

protobuf's own ``text_format`` parses; its errors name neither the nearest known
field nor, for what it skips, the place. This scan only follows the braces and
the field names, and goes on as far as it can in text that does not parse.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>[A-Za-z0-9_.]+(?:(?<=[eE])[+-][0-9]+[fF]?)?)
      | (?P<mark>[{}<>\[\]:;,-])
      | (?P<other>.)""", re.VERBOSE)
_NAMES = {index: name for name, index in _TOKEN.groupindex.items()}
_CLOSER = {"{": "}", "<": ">", "[": "]"}


@dataclass(slots=True)
class Value:
    """One scalar value as written, sign and quotes included, and its offset in the text."""

    text: str
    offset: int


@dataclass(slots=True)
class Entry:
    """A field as it stands in the text.

    Attributes
    ----------
    name : the field's name as written
    path : the field's place, with an index for every message (``layer[2].clip_param[0].min``)
    message : type of the message that holds it
    outer : types of the messages around that one, from the outside in
    known : its descriptor, None if `message` has no such field
    start, end : offsets of the name's first character and past the value's last
    values : its scalar values; empty if it holds messages
    braces : whether it holds a message in braces
    """

    name: str
    path: str
    message: Descriptor
    outer: tuple[Descriptor, ...]
    known: FieldDescriptor | None
    start: int
    end: int
    values: list[Value] = field(default_factory=list)
    braces: bool = False


@dataclass(slots=True)
class Problem:
    """A mistake in the text: where it stands, and after how much of the text it shows."""

    text: str
    offset: int
    seen: int


@dataclass(slots=True)
class _Frame:
    """An open brace or bracket: the message type inside it and the field that holds it."""

    descriptor: Descriptor | None
    opener: str
    offset: int
    entry: Entry | None
    path: str
    counts: dict[str, int] = field(default_factory=dict)


class Scan:
    """The fields of `text` as a message of type `descriptor`, up to the first broken place.

    Attributes
    ----------
    entries : every field of a known message, in order
    problem : the broken place (brace, quote or character), None if there is none
    """

    def __init__(self, text: str, descriptor: Descriptor) -> None:
        self._text = text
        self._lines = [0] + [match.end() for match in re.finditer("\n", text)]
        # Where each token begins and ends, and what it is: a match object each would take ten times as much.
        self._starts, self._ends, self._kinds = array("L"), array("L"), bytearray()
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "space":
                self._starts.append(match.start())
                self._ends.append(match.end())
                self._kinds.append(match.lastindex or 0)
        self._next = 0
        self._stack = [_Frame(descriptor, "", 0, None, "")]
        self.entries: list[Entry] = []
        self.problem: Problem | None = None
        while self.problem is None and self._next < len(self._kinds):
            self._step()
        if self.problem is None and len(self._stack) > 1:
            frame = self._stack[-1]
            owner = f" of {frame.entry.name}" if frame.entry else ""
            self.problem = Problem(f"the {frame.opener!r}{owner} is never closed; add a "
                                   f"{_CLOSER[frame.opener]!r}", frame.offset, len(text))

    def position(self, offset: int) -> tuple[int, int]:
        """Return line and column, both from 1, of `offset`."""
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def _peek(self) -> str:
        return self._text[self._starts[self._next]:self._ends[self._next]] if self._next < len(self._kinds) else ""

    def _kind(self, index: int) -> str | None:
        return _NAMES[self._kinds[index]] if index < len(self._kinds) else None

    def _fail(self, text: str) -> None:
        """Stop at the next token; what is wrong with the token itself goes before `text`."""
        offset = len(self._text)
        if self._next < len(self._kinds):
            token = self._peek()
            offset = self._starts[self._next]
            if token in ('"', "'"):
                text = f"the string that {token} opens is not closed on its line"
            elif self._kind(self._next) == "other":
                text = f"unexpected character {token!r}"
                text += "; a comment begins with '#'" if token == "/" else ""
        self.problem = Problem(text, offset, offset)

    def _step(self) -> None:
        """Take in a closing mark, a separator, a list item, or a field name and what begins its value."""
        frame, token = self._stack[-1], self._peek()
        if token in _CLOSER.values():
            self._close(frame, token)
        elif frame.opener == "[":
            if token == ",":
                self._next += 1
            else:
                self._value(frame.entry, frame.descriptor, frame.path)
        elif token == "[":
            self._bracketed_name(frame)
        elif self._kind(self._next) == "word":
            self._field(frame, token)
        else:
            self._fail(f"expected the name of a field, not {token!r}")

    def _close(self, frame: _Frame, token: str) -> None:
        if _CLOSER.get(frame.opener) != token:
            self._fail(f"{token!r} closes nothing; remove it" if not frame.opener else
                       f"{token!r} cannot close the {frame.opener!r} of line "
                       f"{self.position(frame.offset)[0]}; expected {_CLOSER[frame.opener]!r}")
            return
        self._stack.pop()
        self._end_value(frame.entry, self._stack[-1].opener == "[")

    def _end_value(self, entry: Entry | None, in_list: bool) -> None:
        """Step over the value's last token and, after a whole field, over a separator."""
        self._next += 1
        if not in_list and self._peek() in (",", ";"):
            self._next += 1
        if entry is not None:
            entry.end = self._ends[self._next - 1]

    def _bracketed_name(self, frame: _Frame) -> None:
        """Take in an extension name in brackets: no message of Caffe's has any."""
        first = self._next
        while self._peek() not in ("]", ""):
            self._next += 1
        if not self._peek():
            self._next = first
            self._fail("the '[' is never closed; add a ']'")
            return
        self._field(frame, self._text[self._starts[first]:self._ends[self._next]], first)

    def _field(self, frame: _Frame, name: str, first: int | None = None) -> None:
        """Take in a field's name, its colon and its value, or what opens its value."""
        start = self._starts[self._next if first is None else first]
        self._next += 1
        entry = inner = None
        path = frame.path
        if frame.descriptor is not None:
            known = frame.descriptor.fields_by_name.get(name)
            inner = known.message_type if known else None
            path += ("." if path else "") + name
            outer = tuple(f.descriptor for f in self._stack[:-1] if f.descriptor and f.opener != "[")
            entry = Entry(name, path, frame.descriptor, outer, known, start, start)
            self.entries.append(entry)
        colon = self._peek() == ":"
        self._next += colon
        if not colon and self._peek() not in ("{", "<"):
            self._fail(f"expected ':' or '{{' after {name}")
            return
        if self._peek() == "[":
            self._stack.append(_Frame(inner, "[", self._starts[self._next], entry, path))
            self._next += 1
        else:
            self._value(entry, inner, path)

    def _value(self, entry: Entry | None, inner: Descriptor | None, path: str) -> None:
        """Take in a scalar, or open a message."""
        token, in_list = self._peek(), self._stack[-1].opener == "["
        if token in ("{", "<"):
            holder = self._stack[-2 if in_list else -1]
            index = holder.counts[path] = holder.counts.get(path, -1) + 1
            if entry is not None:
                entry.braces = True
                path = entry.path = f"{path}[{index}]"
            self._stack.append(_Frame(inner, token, self._starts[self._next], entry, path))
            self._next += 1
            return
        start = self._next
        self._next += token == "-"
        kind = self._kind(self._next)
        if kind not in ("word", "string"):
            self._fail(f"{entry.name if entry else 'the field'} has no value")
            return
        while kind == "string" and self._kind(self._next + 1) == "string":
            self._next += 1
        if entry is not None:
            offset = self._starts[start]
            entry.values.append(Value(self._text[offset:self._ends[self._next]], offset))
        self._end_value(entry, in_list)
