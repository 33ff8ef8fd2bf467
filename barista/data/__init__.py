"""Input data: databases, images, mean files, transformation and read-ahead.

Raw values go from a record (`datum`) out of a database (`database`) through the
transformation (`transformer`) into the batches of a `feeder`. Others come from image files
(`image_batches`), windows in them (`window_batches`), HDF5 files (`hdf5_data`) and arrays
(`memory`). A thread reads all but the last ahead (`read_ahead`). `convert`, `mean` and `digits`
make what these read.
"""

from barista.data.convert import convert_imageset
from barista.data.database import create_database, open_database
from barista.data.datum import array_to_datum, datum_to_array
from barista.data.digits import digits_to_lmdb
from barista.data.feeder import Feeder
from barista.data.images import read_image
from barista.data.mean import compute_image_mean, read_mean, write_mean
from barista.data.transformer import Transformer

__all__ = ["Feeder", "Transformer", "array_to_datum", "compute_image_mean", "convert_imageset",
           "create_database", "datum_to_array", "digits_to_lmdb", "open_database", "read_image", "read_mean",
           "write_mean"]
