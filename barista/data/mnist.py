"""MNIST's files into a database: images and labels in the idx format, as they are downloaded."""

from __future__ import annotations

import gzip
import logging
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.data.filling import fill_database
from barista.errors import DataError

logger = logging.getLogger("barista.data")

# Two zero bytes, 8 for unsigned bytes, and the number of axes.
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801
_GZIP_SIGNATURE = b"\x1f\x8b"
# Larger than any file of this kind; a header that asks for more is damaged.
_LARGEST_BYTES = 2**31


def convert_mnist(images_file: str | os.PathLike[str], labels_file: str | os.PathLike[str],
                  db_path: str | os.PathLike[str], backend: str = "lmdb", progress: bool = True) -> int:
    """Write the images of an idx file, with the labels of another, into a new database.

    Caffe: keys are the numbers of the images in eight digits. Files that are still compressed (gzip) will do here.

    Parameters
    ----------
    images_file, labels_file : such as ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``
    db_path : folder to create
    backend : kind of the database
    progress : show a bar when standard error is a terminal

    Returns
    -------
    int : number of images written

    Raises
    ------
    DataError
        If a file is no idx file of that kind or cut short, or if there are not as many labels as images.
    """
    images = read_idx(images_file, IMAGES_MAGIC)
    labels = read_idx(labels_file, LABELS_MAGIC)
    if len(images) != len(labels):
        raise DataError(f"{os.fspath(images_file)} has {len(images)} images and {os.fspath(labels_file)} "
                        f"{len(labels)} labels; give two files that belong together")
    count, rows, columns = images.shape
    if min(count, rows, columns) == 0:
        raise DataError(f"{os.fspath(images_file)} has {count} images of {rows} x {columns} pixels; there is nothing "
                        "to convert")
    logger.info("A total of %d items.", count)
    logger.info("Rows: %d Cols: %d", rows, columns)
    records = ((f"{number:08d}", array_to_datum(image[np.newaxis], int(label)))
               for number, (image, label) in enumerate(zip(images, labels, strict=True)))
    with create_database(db_path, backend) as database:
        return fill_database(database, records, count, progress)


def read_idx(path: str | os.PathLike[str], magic: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or compressed by gzip.

    Parameters
    ----------
    path : the file
    magic : the number that it must begin with: `IMAGES_MAGIC` or `LABELS_MAGIC`

    Returns
    -------
    np.ndarray : one axis for labels, three (number, rows, columns) for images

    Raises
    ------
    DataError
        If it cannot be read, is of another kind, or does not hold what its head counts.
    """
    name = os.fspath(path)
    axes = magic & 0xff
    try:
        with open(name, "rb") as plain:
            packed = plain.read(2) == _GZIP_SIGNATURE
            plain.seek(0)
            if not packed:
                return _read(plain, name, magic, axes)
            with gzip.open(plain) as unpacked:
                return _read(unpacked, name, magic, axes)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{name} cannot be read: {reason}") from error


def _read(file: BinaryIO | gzip.GzipFile, name: str, magic: int, axes: int) -> npt.NDArray[np.uint8]:
    head = file.read(4 + 4 * axes)
    found = int.from_bytes(head[:4], "big")
    kinds = {IMAGES_MAGIC: "images (idx3-ubyte)", LABELS_MAGIC: "labels (idx1-ubyte)"}
    if len(head) >= 4 and found != magic:
        hint = f"which is a file of {kinds[found]}; were the two files exchanged?" if found in kinds else \
            "which is no idx file of unsigned bytes"
        raise DataError(f"{name} begins with {found}, where a file of {kinds[magic]} begins with {magic}; {hint}")
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{name} has {len(head)} bytes, less than the head of a file of {kinds[magic]}; it is cut "
                        "short, get it again")
    shape = struct.unpack(f">{axes}I", head[4:])
    count = 1
    for size in shape:
        count *= size
    counts = " x ".join(map(str, shape))
    if count > _LARGEST_BYTES:
        raise DataError(f"{name} counts {counts} = {count} bytes in its head; it is damaged, get it again")
    # In pieces, so that a head that promises too much takes no more memory than there is file.
    data, missing = bytearray(), count
    while missing and (piece := file.read(min(missing, 1 << 24))):
        data += piece
        missing -= len(piece)
    if missing or file.read(1):
        more = "less" if missing else "more"
        raise DataError(f"{name} holds {more} than the {counts} bytes that its head counts; it is damaged, "
                        "get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)
