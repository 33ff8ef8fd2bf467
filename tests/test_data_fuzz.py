"""Random bytes wherever data comes in: the only exceptions are Barista's own."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.data.convert import convert_imageset, read_list
from barista.data.database import create_database, open_database
from barista.data.datum import datum_to_array, parse_datum
from barista.data.feeder import Feeder
from barista.data.images import decode_image
from barista.data.mean import read_mean
from barista.data.transformer import Transformer
from barista.errors import BaristaError
from barista.proto import caffe_pb2

GOLDEN = Path(__file__).parent / "golden" / "data"
PNG = (GOLDEN / "png" / "0.png").read_bytes()
MEAN = (GOLDEN / "mnist_mean.binaryproto").read_bytes()
with open_database(GOLDEN / "mnist_lmdb") as _database:
    RECORD = next(_database.items())[1]

small = st.integers(-3, 5)
datums = st.builds(caffe_pb2.Datum, channels=small, height=small, width=small, data=st.binary(max_size=60),
                   label=st.integers(-2**31, 2**31 - 1), encoded=st.booleans(),
                   float_data=st.lists(st.floats(width=32), max_size=20))


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` with some bytes changed, some taken out, and a tail cut off."""
    data = bytearray(original)
    change = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))
    for place, value in draw(st.lists(change, max_size=8)):
        data[place] = value
    if draw(st.booleans()):
        start = draw(st.integers(0, len(data)))
        del data[start:start + draw(st.integers(0, 40))]
    return bytes(data[:draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged(RECORD), datums.map(caffe_pb2.Datum.SerializeToString)),
       st.booleans(), st.booleans())
def test_records(value: bytes, force_color: bool, force_gray: bool) -> None:
    with contextlib.suppress(BaristaError):
        array = datum_to_array(parse_datum(value), force_color, force_gray)
        assert array.ndim == 3 and array.size > 0 and array.dtype in (np.uint8, np.float32)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged(PNG)), st.sampled_from([True, False, None]))
def test_images(data: bytes, color: bool | None) -> None:
    with contextlib.suppress(BaristaError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = decode_image(data, color=color)
        assert array.ndim == 3 and array.dtype == np.uint8


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged(MEAN)))
def test_mean_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BaristaError):
        path = Path(folder) / "mean"
        path.write_bytes(data)
        assert read_mean(path).ndim == 3


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(alphabet="a0 -1\n\r\t9.\u00e9").map(str.encode)))
def test_image_lists(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.txt"
        path.write_bytes(data)
        with contextlib.suppress(BaristaError):
            assert all(name and -2**31 <= label < 2**31 for name, label in read_list(path))
        with contextlib.suppress(BaristaError):
            convert_imageset(folder, path, Path(folder) / "db", progress=False)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(datums, st.just(caffe_pb2.Datum.FromString(RECORD))), min_size=1, max_size=6),
       st.integers(0, 4), st.sampled_from([caffe_pb2.TRAIN, caffe_pb2.TEST]))
def test_databases(records: list, crop: int, phase: int) -> None:
    param = caffe_pb2.TransformationParameter(crop_size=crop, mirror=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db"
        with create_database(path) as writer:
            for number, record in enumerate(records):
                writer.put(str(number), record.SerializeToString())
        with contextlib.suppress(BaristaError), \
                Feeder(str(path), "LMDB", 2, Transformer(param, phase, np.random.default_rng(0))) as feeder:
            for _ in range(3):
                assert feeder.next_batch()[0].shape == feeder.shape


@settings(deadline=None)
@given(damaged((GOLDEN / "mnist_lmdb" / "data.mdb").read_bytes()[:4096 + 152]))
def test_heads_of_database_files(data: bytes) -> None:
    # No more than the head: LMDB trusts the pages of a file whose length is right.
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BaristaError):
        (Path(folder) / "data.mdb").write_bytes(data)
        open_database(folder).close()
        raise AssertionError("a head without pages was taken for a database")
