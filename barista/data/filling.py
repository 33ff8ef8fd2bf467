"""Filling a new database with records from any source, under a progress bar."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from tqdm import tqdm

from barista.data.database import DatabaseWriter
from barista.proto import caffe_pb2

logger = logging.getLogger("barista.data")


def fill_database(database: DatabaseWriter, records: Iterable[tuple[str, caffe_pb2.Datum]], total: int | None = None,
                  progress: bool = True) -> int:
    """Write records into a database and return their number.

    Parameters
    ----------
    database : open for writing
    records : key and record of each, taken one at a time
    total : how many there are, for the bar
    progress : show a bar when standard error is a terminal

    Raises
    ------
    DataError : the database cannot be written
    """
    written = 0
    hidden = not (progress and sys.stderr.isatty())
    for key, datum in tqdm(records, total=total, unit="image", disable=hidden):
        database.put(key, datum.SerializeToString())
        written += 1
    logger.info("Processed %d files.", written)
    return written
