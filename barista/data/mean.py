"""Mean images: reading, writing and computing ``.binaryproto`` files."""

from __future__ import annotations

import logging
import os
import sys

import numpy as np
from google.protobuf.message import DecodeError
from tqdm import tqdm

from barista.data.database import open_database
from barista.data.datum import datum_to_array, parse_datum
from barista.errors import DataError
from barista.proto import caffe_pb2
from barista.proto.blobs import blob_to_array
from barista.proto.wire import parse

logger = logging.getLogger("barista.data")


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a mean image.

    Returns
    -------
    np.ndarray : (C,H,W) float32

    Raises
    ------
    DataError
        If the file cannot be read, is no ``BlobProto``, or does not hold one finite image.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            blob = parse(file.read(), caffe_pb2.BlobProto)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"mean file {name!r} cannot be read: {reason} (in {os.getcwd()}); "
                        "`barista compute_image_mean` makes it") from error
    except DecodeError as error:
        raise DataError(f"mean file {name!r} is not a BlobProto; "
                        "make it with `barista compute_image_mean`") from error
    try:
        values = blob_to_array(blob).astype(np.float32)
    except DataError as error:
        raise DataError(f"mean file {name!r}: {error}") from error
    image_shape = (1,) * (3 - values.ndim) + values.shape[-3:]
    if any(size != 1 for size in values.shape[:-3]) or min(image_shape) == 0:
        raise DataError(f"mean file {name!r} has shape {values.shape}; it must hold one image, (1,C,H,W)")
    mean = values.reshape(image_shape)
    if not np.isfinite(mean).all():
        bad = np.count_nonzero(~np.isfinite(mean))
        raise DataError(f"mean file {name!r} has {bad} of {mean.size} values not finite; compute it anew")
    return mean


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write a (C,H,W) mean image as a ``BlobProto``, with the four old size fields as Caffe does."""
    if mean.ndim != 3:
        raise DataError(f"a mean image must be (C,H,W), not of shape {mean.shape}")
    blob = caffe_pb2.BlobProto(num=1, channels=mean.shape[0], height=mean.shape[1], width=mean.shape[2])
    blob.data.extend(mean.astype(np.float32).ravel().tolist())
    try:
        with open(path, "wb") as file:
            file.write(blob.SerializeToString())
    except OSError as error:
        raise DataError(f"mean file {os.fspath(path)!r} cannot be written: {error.strerror}") from error


def compute_image_mean(source: str | os.PathLike[str], out_path: str | os.PathLike[str] | None = None,
                       backend: str = "LMDB", progress: bool = True) -> np.ndarray:
    """Return the mean image of a database, and log the mean of each channel.

    Parameters
    ----------
    source : database
    out_path : file to write the mean to, or None
    backend : kind of the database
    progress : show a bar when standard error is a terminal

    Returns
    -------
    np.ndarray : (C,H,W) float32

    Raises
    ------
    DataError
        If a record is bad or of another size than the first.

    Notes
    -----
    Sums are float64, so that a long database loses nothing; Caffe's are float32. The last
    division is float32 as in Caffe: small databases give the same bytes.
    """
    logger.info("Starting iteration")
    with open_database(source, backend, "--backend") as database:
        total: np.ndarray | None = None
        hidden = not (progress and sys.stderr.isatty())
        for index, (key, value) in enumerate(tqdm(database.items(), total=len(database), unit="image",
                                                  disable=hidden), start=1):
            try:
                image = datum_to_array(parse_datum(value))
                if total is None:
                    total = np.zeros(image.shape, dtype=np.float64)
                if image.shape != total.shape:
                    raise DataError(f"shape {image.shape}, but the first record has {total.shape}; a mean "
                                    "needs equal sizes, resize the images when converting them")
            except DataError as error:
                place = f"record {index - 1} (key {key!r})"
                raise DataError(f"database {database.source!r}, {place}: {error}") from error
            total += image
            if index % 10000 == 0:
                logger.info("Processed %d files.", index)
        count = len(database)
    if count % 10000 != 0:
        logger.info("Processed %d files.", count)
    assert total is not None  # open_database refuses an empty database
    mean = total.astype(np.float32) / np.float32(count)
    if out_path is not None:
        logger.info("Write to %s", os.fspath(out_path))
        write_mean(out_path, mean)
    logger.info("Number of channels: %d", mean.shape[0])
    for channel, value_mean in enumerate(mean.mean(axis=(1, 2), dtype=np.float64)):
        logger.info("mean_value channel [%d]: %g", channel, value_mean)
    return mean
