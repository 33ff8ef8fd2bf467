"""scikit-learn's handwritten digits as databases: a first data set that needs no download."""

from __future__ import annotations

import os

import numpy as np

from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.data.images import resize
from barista.errors import MissingExtraError

SIZE_PIXELS = 28  # as MNIST
BOX_PIXELS = 20  # MNIST's digits stand in a box of 20 x 20 in the middle
_TEST_COUNT = 360
_SEED = 1797


def digits_to_lmdb(folder: str | os.PathLike[str]) -> tuple[str, str]:
    """Write ``digits_train_lmdb`` (1,437 records) and ``digits_test_lmdb`` (360) into a folder.

    The 1,797 digits of 8 x 8 pixels with values 0 to 16 become (1,28,28) uint8, laid out as in
    MNIST: enlarged bilinearly to 20 x 20, in the middle, white on black. The split is
    shuffled, keeps the share of each digit, and is always the same.

    Returns
    -------
    tuple : paths of the training and the test database

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    DataError
        If a database exists already or cannot be written.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "digits", "the handwritten digits data set") from error
    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(levels), 1, SIZE_PIXELS, SIZE_PIXELS), dtype=np.uint8)
    start = (SIZE_PIXELS - BOX_PIXELS) // 2
    middle = slice(start, start + BOX_PIXELS)
    images[:, 0, middle, middle] = resize(levels, BOX_PIXELS, BOX_PIXELS)
    train, test = train_test_split(np.arange(len(images)), test_size=_TEST_COUNT, random_state=_SEED,
                                   stratify=digits.target)
    train_path = os.path.join(os.fspath(folder), "digits_train_lmdb")
    test_path = os.path.join(os.fspath(folder), "digits_test_lmdb")
    # Both are made before either is filled, so that a leftover of an earlier run leaves no half pair behind.
    with create_database(train_path) as train_database, create_database(test_path) as test_database:
        for database, rows in ((train_database, train), (test_database, test)):
            for number, row in enumerate(rows):
                datum = array_to_datum(images[row], int(digits.target[row]))
                database.put(f"{number:08d}", datum.SerializeToString())
    return train_path, test_path
