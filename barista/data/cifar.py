"""CIFAR-10's binary files into two databases."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence

import numpy as np

from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.data.filling import fill_database
from barista.errors import DataError
from barista.proto import caffe_pb2

logger = logging.getLogger("barista.data")

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue pixels
_CLASSES = 10


def convert_cifar(input_folder: str | os.PathLike[str], output_folder: str | os.PathLike[str], backend: str = "lmdb",
                  progress: bool = True) -> tuple[str, str]:
    """Write ``cifar10_train_BACKEND`` and ``cifar10_test_BACKEND`` into a folder.

    Caffe: keys are the numbers of the images in five digits, channels stay in the order red, green, blue.

    Parameters
    ----------
    input_folder : holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, the "binary version" unpacked
    output_folder : folder for the two databases
    backend : kind of the databases
    progress : show a bar when standard error is a terminal

    Returns
    -------
    tuple : paths of the training and the test database

    Raises
    ------
    DataError
        If a file is missing or damaged, or a database exists already; nothing is left behind then.
    """
    backend = backend.lower()
    train = os.path.join(os.fspath(output_folder), f"cifar10_train_{backend}")
    test = os.path.join(os.fspath(output_folder), f"cifar10_test_{backend}")
    counts = [_count(input_folder, files) for files in (TRAIN_FILES, TEST_FILES)]
    # Both are made before either is filled, so that a leftover of an earlier run leaves no half pair behind.
    with create_database(train, backend) as train_database, create_database(test, backend) as test_database:
        logger.info("Writing Training data")
        fill_database(train_database, _records(input_folder, TRAIN_FILES), counts[0], progress)
        logger.info("Writing Testing data")
        fill_database(test_database, _records(input_folder, TEST_FILES), counts[1], progress)
    return train, test


def _count(folder: str | os.PathLike[str], files: Sequence[str]) -> int:
    """How many images the files hold, from their sizes."""
    total = 0
    for file in files:
        path = os.path.join(os.fspath(folder), file)
        try:
            size_bytes = os.stat(path).st_size
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; the folder must hold {', '.join(TRAIN_FILES)} "
                            f"and {TEST_FILES[0]}, the binary version of CIFAR-10, unpacked") from error
        if size_bytes == 0 or size_bytes % _RECORD_BYTES:
            raise DataError(f"{path} has {size_bytes} bytes, which is not a number of images of {_RECORD_BYTES} bytes; "
                            "it is cut short or not of CIFAR-10's binary version, get it again")
        total += size_bytes // _RECORD_BYTES
    return total


def _records(folder: str | os.PathLike[str], files: Sequence[str]) -> Iterator[tuple[str, caffe_pb2.Datum]]:
    """The records of files, numbered through."""
    number = 0
    for file in files:
        path = os.path.join(os.fspath(folder), file)
        logger.info("%s", path)
        records = np.fromfile(path, np.uint8).reshape(-1, _RECORD_BYTES)
        for record in records:
            if record[0] >= _CLASSES:
                raise DataError(f"{path}: image {number} has the label {record[0]}, but CIFAR-10 has the labels 0 to "
                                f"{_CLASSES - 1}; is this CIFAR-100, or no CIFAR file?")
            yield f"{number:05d}", array_to_datum(record[1:].reshape(_SHAPE), int(record[0]))
            number += 1
