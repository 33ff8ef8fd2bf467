"""Damaged files of every kind: Barista's own error or a success, never another error, and never much memory."""

from __future__ import annotations

import contextlib
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import GOLDEN, NET, Target, make_net, targets
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import BaristaError
from barista.frontends.prototxt import parse_net, to_text
from barista.proto.caffe_pb2 import NetParameter

TARGETS = targets()

# Nets that together have nearly all types of layers.
NETS = [NET, *(str(np.load(path)["net"]) for path in sorted((GOLDEN / "layers").glob("*.npz")))]

# What a reader may take: twice the file, and this.
SPARE_BYTES = 32 * 2**20

# Bytes that stand where sizes are written, large and small, in the encodings of the formats.
SIZES = [b"\x00", b"\xff", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 8, b"\xff" * 4,
         b"\x00\x00\x00\x80", b"\x00\x00\x00\x00\x00\x00\x00\x80", b"\x00" * 8, b"999999999999", b"-1", b"1e999",
         b"nan"]

places = st.floats(0, 1)
edits = st.lists(st.one_of(
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("overwrite"), places, st.sampled_from(SIZES)),
    st.tuples(st.just("insert"), places, st.one_of(st.sampled_from(SIZES), st.binary(max_size=6))),
    st.tuples(st.just("delete"), places, st.integers(1, 64)),
    st.tuples(st.just("repeat"), places, st.integers(1, 200)),
    st.tuples(st.just("splice"), places, places),
    st.tuples(st.just("cut"), places, st.just(0))), min_size=1, max_size=5)


def edited(data: bytes, other: bytes, changes: list[tuple[str, float, object]]) -> bytes:
    """`data` with changes; `other` is what is spliced in."""
    for kind, place, detail in changes:
        at = int(place * max(len(data) - 1, 0))
        if kind == "flip" and data:
            assert isinstance(detail, int)
            data = data[:at] + bytes([data[at] ^ 1 << detail]) + data[at + 1:]
        elif kind == "cut":
            data = data[:at]
        elif isinstance(detail, bytes):
            data = data[:at] + detail + data[at + (len(detail) if kind == "overwrite" else 0):]
        elif kind == "splice":
            assert isinstance(detail, float)
            data = data[:at] + other[int(detail * len(other)):]
        elif isinstance(detail, int):
            data = data[:at] + (data[at:at + detail] * 2 if kind == "repeat" else b"") + data[at + detail:]
    return data


def check(target: Target, data: bytes) -> None:
    """Read a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        tracemalloc.start()
        try:
            with contextlib.suppress(BaristaError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.read(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= 2 * len(data) + SPARE_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    for number, seed in enumerate(TARGETS[name].seeds):
        path = tmp_path / str(number)
        path.write_bytes(seed)
        if (name, number) != ("schedule", 1):
            TARGETS[name].read(path)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name: str) -> None:
    target = TARGETS[name]

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(st.sampled_from(target.seeds), st.sampled_from(target.seeds), edits)
    def run(data: bytes, other: bytes, changes: list[tuple[str, float, object]]) -> None:
        check(target, edited(data, other, changes))

    run()


# ---- nets whose text is good and whose numbers are not ----------------------------------------------------

NUMBERS = [0, 1, -1, 2, 3, 100, 2**16, 2**31 - 1, -2**31, 2**32 - 1, 2**63 - 1, -2**63]
FLOATS = [0.0, -1.0, 1.0, 1e30, -1e30, float("inf"), float("nan"), 1e-40]


def messages(message: Message) -> list[Message]:
    """A message and all that lie in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "add") else [value]:
                found += messages(part)
    return found


def spoilt(net: NetParameter, changes: list[tuple[int, int, int]]) -> NetParameter:
    """`net` with other numbers in some of its fields, of any that the messages of its layers have."""
    for which, place, number in changes:
        parts = [part for layer in net.layer for part in messages(layer)]
        message = parts[which % len(parts)]
        fields = [field for field in message.DESCRIPTOR.fields if not field.message_type and not field.enum_type]
        if not fields:
            continue
        name = fields[place % len(fields)].name
        for values in (NUMBERS, FLOATS, [True, False]):
            value, current = values[number % len(values)], getattr(message, name)
            try:
                if not hasattr(current, "append"):
                    setattr(message, name, value)
                elif number % 5 and current:
                    current[place % len(current)] = value
                else:
                    current.append(value)
                break
            except (TypeError, ValueError):
                continue
    return net


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.sampled_from(NETS), st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=1, max_size=3))
def test_nets_with_absurd_numbers(text: str, changes: list[tuple[int, int, int]]) -> None:
    wrong = to_text(spoilt(parse_net(text), changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(Target(make_net, ()), wrong.encode())
