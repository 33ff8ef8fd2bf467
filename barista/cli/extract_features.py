"""``barista extract_features``: what a trained network computes inside, image by image."""

from __future__ import annotations

import argparse
import contextlib
import logging
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..data import array_to_datum, create_database
from ..errors import DataError, NetError, nearest
from ..files import replacing, why_unwritable
from ..net import Net
from .arguments import Parser, UsageError, add_compute, add_network, at_least, comma_list
from .compute import close_ops, open_net, open_ops
from .progress import progress

logger = logging.getLogger(__name__)

DESCRIPTION = """Run a trained network, in its phase TEST, over NUM_BATCHES batches of its own data, and keep the
values of some blobs: an image's values of each BLOB become a record of the database that stands at the same place in
DB, or, with npz for DB_TYPE, a row of an array in the file DB, which numpy.load reads."""

EXAMPLES = """  barista extract_features net.caffemodel train_val.prototxt fc7 fc7_lmdb 10 lmdb
  barista extract_features net.caffemodel train_val.prototxt fc6,prob fc6_lmdb,prob_lmdb 10 lmdb
  barista extract_features net.caffemodel train_val.prototxt fc7 fc7.npz 10 npz --backend opencl"""

ARRAYS = "npz"
# What takes one batch's values of a blob, an image a row.
Sink = Callable[[npt.NDArray[np.float32]], None]
_SAID_EVERY = 1000


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("weights", metavar="WEIGHTS", help="trained parameters (caffemodel, or .h5)")
    parser.add_argument("model", metavar="NET", help="the network (prototxt)")
    parser.add_argument("blobs", metavar="BLOB[,BLOB...]", help="names of the blobs to keep")
    parser.add_argument("datasets", metavar="DB[,DB...]", help="a new database, or file, for each of them")
    parser.add_argument("batches", metavar="NUM_BATCHES", type=at_least(1), help="number of batches")
    parser.add_argument("db_type", metavar="DB_TYPE", help="lmdb or leveldb; npz writes files of NumPy arrays")
    parser.add_argument("mode", metavar="CPU|GPU", nargs="?", default=None, type=str.upper, choices=("CPU", "GPU"),
                        help="Caffe's choice of what computes: GPU means --backend opencl")
    parser.add_argument("device_id", metavar="DEVICE_ID", nargs="?", default=None,
                        help="Caffe's number of a CUDA device; not followed, see --device")
    add_network(parser)
    add_compute(parser)


def run(args: argparse.Namespace) -> None:
    """Extract the features of one network."""
    names, datasets = comma_list(args.blobs), comma_list(args.datasets)
    if len(names) != len(datasets):
        raise UsageError(f"{len(names)} blob(s) ({args.blobs}) and {len(datasets)} place(s) to keep them "
                         f"({args.datasets}); give one for each, separated by ','")
    if len(set(datasets)) < len(datasets):
        raise UsageError(f"{args.datasets}: one place is given twice; each blob needs its own")
    if args.mode == "GPU" and args.gpu is None:
        args.gpu = args.device_id or "0"
    args.phase = "TEST"
    ops = open_ops(args, "extract_features.cpp:62")
    net = open_net(args, ops)
    try:
        for weights in comma_list(args.weights):
            net.copy_from(weights)
        for name in names:
            _check_blob(net, name, args.db_type)
        with contextlib.ExitStack() as stack:
            # All are made before the first batch is computed: a place that is taken is known at once.
            sinks = [stack.enter_context(_open_sink(dataset, name, args.db_type))
                     for name, dataset in zip(names, datasets, strict=True)]
            extract(net, names, sinks, args.batches, args.quiet)
    finally:
        net.close()
    close_ops(ops)
    logger.info("Successfully extracted the features!", extra={"origin": "extract_features.cpp:187"})


def extract(net: Net, names: Sequence[str], sinks: Sequence[Sink], batches: int, quiet: bool = False) -> int:
    """Compute batches and hand the blobs' values to `sinks`; returns the number of images of the first blob."""
    logger.info("Extracting Features", extra={"origin": "extract_features.cpp:134"})
    counts = dict.fromkeys(names, 0)
    with progress(batches, "extract", quiet) as bar:
        for _ in range(batches):
            net.forward_pass()
            for name, sink in zip(names, sinks, strict=True):
                values = np.asarray(net.blobs[name].data, np.float32)
                sink(values)
                before, counts[name] = counts[name], counts[name] + len(values)
                if before // _SAID_EVERY < counts[name] // _SAID_EVERY:
                    _say(name, counts[name])
            bar.update(1)
    for name in names:
        _say(name, counts[name])
    return counts[names[0]]


def _say(name: str, count: int) -> None:
    logger.info("Extracted features of %d query images for feature blob %s", count, name,
                extra={"origin": "extract_features.cpp:183"})


def _check_blob(net: Net, name: str, kind: str) -> None:
    """Refuse a blob that is not there or whose values make no records.

    Raises
    ------
    NetError : it is refused, and why
    """
    if name not in net.blobs:
        hint = nearest(name, net.blobs) or f"it has {', '.join(net.blobs)}"
        raise NetError(f"net {net.name!r} has no blob {name!r} in the phase TEST; {hint}")
    shape = net.blobs[name].shape
    if not shape:
        raise NetError(f"blob {name!r} is a single number and has no axis of images; `barista test` averages such "
                       "outputs")
    if len(shape) > 4 and kind.lower() != ARRAYS:
        raise NetError(f"blob {name!r} has {len(shape)} axes {shape}, and a record of a database holds an image's "
                       f"channels, height and width; give {ARRAYS} for DB_TYPE")


@contextlib.contextmanager
def _open_sink(path: str, name: str, kind: str) -> Iterator[Sink]:
    """Open the place where a blob's values go; what ends badly leaves nothing there."""
    if kind.lower() == ARRAYS:
        if problem := why_unwritable(path):
            raise DataError(f"{path}{problem}")
        rows: list[npt.NDArray[np.float32]] = []
        yield lambda values: rows.append(values.copy())
        # Not numpy.savez, whose own arguments some blobs' names are.
        with (replacing(path) as part, zipfile.ZipFile(part, "w") as archive,
              archive.open(f"{name}.npy", "w", force_zip64=True) as file):
            np.lib.format.write_array(file, np.concatenate(rows), allow_pickle=False)
    else:
        with create_database(path, kind) as database:
            number = 0

            def put(values: npt.NDArray[np.float32]) -> None:
                nonlocal number
                for image in values.reshape(*values.shape, *(1,) * (4 - values.ndim)):
                    database.put(f"{number:010d}", array_to_datum(image).SerializeToString())
                    number += 1

            yield put
