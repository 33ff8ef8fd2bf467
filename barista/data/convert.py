"""Image files with their labels into a database, as ``convert_imageset`` makes it."""

from __future__ import annotations

import logging
import os
import re
import sys

import numpy as np
from tqdm import tqdm

from barista.data.database import create_database
from barista.data.datum import array_to_datum, encoded_datum
from barista.data.images import decode_image, encode_image, resize
from barista.errors import DataError
from barista.proto import caffe_pb2

logger = logging.getLogger("barista.data")

_LABEL = re.compile(r"[+-]?[0-9]{1,10}(\.0*)?")
_LABEL_MIN, _LABEL_MAX = -2**31, 2**31 - 1  # int32 in the Datum message


def convert_imageset(root_folder: str | os.PathLike[str], list_file: str | os.PathLike[str],
                     db_path: str | os.PathLike[str], *, gray: bool = False, shuffle: bool = False,
                     backend: str = "LMDB", resize_width: int = 0, resize_height: int = 0,
                     check_size: bool = False, encoded: bool = False, encode_type: str = "",
                     progress: bool = True, seed: int | None = None) -> int:
    """Write the images of a list into a new database.

    Parameters
    ----------
    root_folder : folder that the names in the list are relative to
    list_file : a line an image, ``name label``; the name may have spaces
    db_path : folder to create
    gray : store 1 channel instead of 3 (BGR)
    shuffle : write in random order
    backend : kind of the database
    resize_width, resize_height : size in pixels; 0 and 0 keep the files' own
    check_size : refuse images of unlike sizes
    encoded : store encoded images; a file goes in as it is where size, channels and type allow
    encode_type : type to encode as, for example ``png``; each file's own where empty
    progress : show a bar when standard error is a terminal
    seed : makes `shuffle` repeatable

    Returns
    -------
    int : number of images written

    Raises
    ------
    DataError
        If the list is bad, no image could be read, or sizes differ under `check_size`;
        nothing is left at `db_path` then.

    Notes
    -----
    Caffe: an image that cannot be read is logged and left out, its number stays unused;
    keys are ``%08d_name``. Root folder and name are joined with a slash if there is none.
    """
    if encode_type and not encoded:
        encoded = True
        logger.info("encode_type specified, assuming encoded=true.")
    if bool(resize_width) != bool(resize_height):
        raise DataError(f"resize_width {resize_width} and resize_height {resize_height}: give both, or neither")
    entries = read_list(list_file)
    if shuffle:
        logger.info("Shuffling data")
        order = np.random.default_rng(seed).permutation(len(entries))
        entries = [entries[place] for place in order]
    logger.info("A total of %d images.", len(entries))
    root = os.fspath(root_folder)
    prefix = root if not root or root.endswith(("/", os.sep)) else root + "/"
    first: tuple[str, tuple[int, ...]] | None = None
    written = 0
    with create_database(db_path, backend) as database:
        hidden = not (progress and sys.stderr.isatty())
        for number, (name, label) in enumerate(tqdm(entries, unit="image", disable=hidden)):
            try:
                encoding = (encode_type or os.path.splitext(name)[1]) if encoded else None
                datum, shape = _make_datum(prefix + name, label, gray, resize_height, resize_width, encoding)
            except _UnreadableImageError as error:
                logger.error("%s; left out", error)
                continue
            if first is None:
                first = (name, shape)
            elif check_size and shape != first[1]:
                raise DataError(f"image {name!r} has shape {shape}, but {first[0]!r} has {first[1]}; "
                                "set resize_height and resize_width, or leave check_size away")
            database.put(f"{number:08d}_{name}", datum.SerializeToString())
            written += 1
            if written % 1000 == 0:
                logger.info("Processed %d files.", written)
        if written == 0:
            raise DataError(f"none of the {len(entries)} images of {os.fspath(list_file)!r} could be read "
                            f"under {root!r}; the log names each")
    if written % 1000 != 0:
        logger.info("Processed %d files.", written)
    if written < len(entries):
        logger.warning("%d of %d images could not be read and were left out",
                       len(entries) - written, len(entries))
    return written


def read_list(list_file: str | os.PathLike[str]) -> list[tuple[str, int]]:
    """Return the (name, label) pairs of an image list; blank lines and a byte order mark are passed over.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, or a line has no label; file and line are named.
    """
    return [(name, label) for name, label, _ in read_numbered_list(list_file)]


def read_numbered_list(list_file: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """Return (name, label, number of the line) of an image list; see `read_list`."""
    path = os.fspath(list_file)
    entries = []
    try:
        # File names are bytes: any byte must survive the way into the key.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                line = line.rstrip("\r\n")
                if not line.strip():
                    continue
                name, _, label = line.rstrip(" \t").rpartition(" ")
                # A whole number may be written 3.0, as programs that know only floats do.
                value = int(label.partition(".")[0]) if _LABEL.fullmatch(label) else _LABEL_MAX + 1
                if not name or "\0" in name or not _LABEL_MIN <= value <= _LABEL_MAX:
                    raise DataError(f"{path}:{number}: {line!r} is not `name label`, the label a whole "
                                    f"number from {_LABEL_MIN} to {_LABEL_MAX}")
                entries.append((name, value, number))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"image list {path!r} cannot be read: {reason}") from error
    if not entries:
        raise DataError(f"image list {path!r} has no line; write `name label` lines")
    return entries


class _UnreadableImageError(DataError):
    """An image that is left out of the database."""


def _make_datum(path: str, label: int, gray: bool, height: int, width: int,
                encoding: str | None) -> tuple[caffe_pb2.Datum, tuple[int, ...]]:
    """Return the record of an image file, encoded or (None) as values, and the shape of its image."""
    channels = 1 if gray else 3
    try:
        with open(path, "rb") as file:
            data = file.read()
        if encoding is None:
            image = resize(decode_image(data, color=not gray, name=path), height, width)
            return array_to_datum(image, label), image.shape
        image = decode_image(data, color=None, name=path)
        if image.shape[0] == channels and not height and _same_type(path, encoding):
            return encoded_datum(data, label), image.shape
        image = decode_image(data, color=not gray, name=path)
    except (OSError, DataError) as error:
        raise _UnreadableImageError(f"Could not open or find file {path!r}: {error}") from error
    image = resize(image, height, width)
    return encoded_datum(encode_image(image, encoding), label), image.shape


def _same_type(path: str, encoding: str) -> bool:
    kinds = [kind.lower().removeprefix(".") for kind in (os.path.splitext(path)[1], encoding)]
    return len({"jpg" if kind == "jpeg" else kind for kind in kinds}) == 1
