"""Layers that read data (Data, ImageData, HDF5Data, WindowData, MemoryData), and HDF5Output, which writes some."""

from __future__ import annotations

import abc
import logging
from typing import Any

from ..blob import HOST
from ..data.feeder import Feeder
from ..data.hdf5_data import HDF5Batches, HDF5Rows
from ..data.image_batches import ImageBatches
from ..data.memory import MemoryBatches
from ..data.read_ahead import ReadAhead
from ..data.transformer import Transformer
from ..data.window_batches import WindowBatches
from ..errors import DataError, NetError
from ..proto.caffe_pb2 import DataParameter
from .base import Bottoms, Count, Layer, Tops, ZeroGradientLayer, exactly, register

log = logging.getLogger(__name__)


class ReadingLayer(Layer):
    """Base of the layers whose batches a thread reads ahead."""

    bottoms = exactly(0)
    tops = exactly(2)

    @abc.abstractmethod
    def open_data(self) -> ReadAhead:
        """Open what is read."""

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        self.feeder = self.open_data()
        for blob, shape in zip(top, self.feeder.shapes, strict=False):
            blob.reshape(*shape)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        """Shapes are those of the data."""

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        for blob, array in zip(top, self.feeder.next_batch(), strict=False):
            if blob.shape != array.shape:  # an image of another size
                blob.reshape(*array.shape)
            # A device takes them over while the host goes on: nobody changes them as long as they are held.
            blob.value.assign(array, self.ops.space)

    def state(self) -> dict[str, Any]:
        """The place, and the random numbers, after the batch last handed out: the thread is further on."""
        return self.feeder.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.feeder.restore(state)

    def close(self) -> None:
        if hasattr(self, "feeder"):  # a setup that failed has opened none
            self.feeder.close()

    @property
    def prefetch(self) -> int:
        """Batches to read ahead.  Caffe: data_param has the number for all of these layers."""
        return max(1, int(self.param.data_param.prefetch))

    @property
    def transformer(self) -> Transformer:
        """What transform_param asks for."""
        return Transformer(self.param.transform_param, self.phase, self.rng)

    def check_source(self, field: str, source: str, batch_size: int) -> None:
        """Refuse a definition that names nothing to read, or asks for empty batches."""
        if not source:
            raise self.error(f"has no {field}.source; name what to read", NetError)
        if batch_size < 1:
            raise self.error(f"{field}.batch_size is {batch_size}; give 1 or more", NetError)


@register("Data")
class Data(ReadingLayer):
    """Batches from a database: images (N, C, H, W) and labels (N,)."""

    tops = Count(1, 2)

    def open_data(self) -> ReadAhead:
        param = self.param.data_param
        self.check_source("data_param", param.source, param.batch_size)
        backend = DataParameter.DB.Name(param.backend)
        feeder = Feeder(param.source, backend, param.batch_size, self.transformer, prefetch=self.prefetch,
                        rand_skip=param.rand_skip, rng=self.rng)
        # Caffe's own lines, which tools look for.
        origin = "db_lmdb.cpp:35" if backend == "LMDB" else "db_leveldb.cpp:18"
        log.info("Opened %s %s", backend.lower(), param.source, extra={"origin": origin})
        log.info("output data size: %s", ",".join(map(str, feeder.shape)), extra={"origin": "data_layer.cpp:45"})
        return feeder


@register("ImageData")
class ImageData(ReadingLayer):
    """Batches of image files that a list names: images (N, C, H, W) and labels (N,)."""

    def open_data(self) -> ReadAhead:
        param = self.param.image_data_param
        self.check_source("image_data_param", param.source, param.batch_size)
        feeder = ReadAhead(ImageBatches(
            param.source, param.batch_size, self.transformer, root_folder=param.root_folder, color=param.is_color,
            height=param.new_height, width=param.new_width, shuffle=param.shuffle, rand_skip=param.rand_skip),
            self.prefetch)
        log.info("output data size: %s", ",".join(map(str, feeder.shapes[0])),
                 extra={"origin": "image_data_layer.cpp:90"})
        return feeder


@register("WindowData")
class WindowData(ReadingLayer):
    """Windows of images, a part of them objects, warped to squares (N, 3, S, S), and their classes (N,)."""

    def open_data(self) -> ReadAhead:
        param = self.param.window_data_param
        self.check_source("window_data_param", param.source, param.batch_size)
        feeder = ReadAhead(WindowBatches(param, self.param.transform_param, self.rng), self.prefetch)
        log.info("output data size: %s", ",".join(map(str, feeder.shapes[0])),
                 extra={"origin": "window_data_layer.cpp:186"})
        return feeder


@register("HDF5Data")
class HDF5Data(ReadingLayer):
    """Rows of datasets in HDF5 files: each top takes the dataset of its name."""

    tops = Count(1)

    def open_data(self) -> ReadAhead:
        param = self.param.hdf5_data_param
        self.check_source("hdf5_data_param", param.source, param.batch_size)
        if self.param.HasField("transform_param"):
            raise self.error("has a transform_param, and HDF5Data does not transform; do it when writing the files",
                             NetError)
        batches = HDF5Batches(param.source, self.param.top, param.batch_size, param.shuffle, self.rng)
        return ReadAhead(batches, self.prefetch, self.ops.dtype)


@register("MemoryData")
class MemoryData(Layer):
    """Batches out of arrays that the caller gives: images (N, C, H, W) and labels.

    Caffe: labels have shape (N,) until the first forward pass, and (N, 1, 1, 1) from then on.
    """

    bottoms = exactly(0)
    tops = exactly(2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.memory_data_param
        shape = param.batch_size, param.channels, param.height, param.width
        if min(shape) < 1:
            raise self.error("batch_size={}, channels={}, height={} and width={} of memory_data_param must all be 1 or "
                             "more".format(*shape), NetError)
        self._batches = MemoryBatches(shape, Transformer(self.param.transform_param, self.phase, self.rng),
                                      self.ops.dtype)
        top[0].reshape(*shape)
        top[1].reshape(shape[0])

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return self._batches.shape[0]

    def reset(self, data: Any, labels: Any) -> None:
        """Give the arrays that the coming batches are read from; see `MemoryBatches.reset`."""
        if self.param.HasField("transform_param"):
            log.warning("%s (MemoryData): transform_param does nothing to arrays that are set", self.name)
        self._told(lambda: self._batches.reset(data, labels))

    def add_images(self, images: Any, labels: Any) -> None:
        """Transform images, (C,H,W) each, and read the coming batches from them; see `MemoryBatches.add_images`."""
        self._told(lambda: self._batches.add_images(images, labels))

    def add_datums(self, datums: Any) -> None:
        """Decode and transform records, and read the coming batches from them."""
        self._told(lambda: self._batches.add_datums(datums))

    def _told(self, act: Any) -> None:
        """Do what the caller asks outside a pass, where the net adds no name to errors."""
        try:
            act()
        except DataError as error:
            self.fail(error)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        """Shapes are those of the definition."""

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        top[0].reshape(*self._batches.shape)
        top[1].reshape(self.batch_size, 1, 1, 1)
        self._batches.next_batch(top[0].value.write(HOST), top[1].value.write(HOST))

    def state(self) -> dict[str, Any]:
        """The row of the next batch, and the random numbers; the arrays are the caller's."""
        return super().state() | self._batches.state()

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._batches.restore(state)


@register("HDF5Output")
class HDF5Output(ZeroGradientLayer):
    """Writes two bottoms, of up to 4 axes, into the datasets ``data`` and ``label`` of an HDF5 file.

    Caffe: the file is made with the net, and axes that a bottom lacks have size 1.  There a second forward pass ends
    the program; here its rows go behind the others.
    """

    bottoms = exactly(2)
    tops = exactly(0)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        name = self.param.hdf5_output_param.file_name
        if not name:
            raise self.error("has no hdf5_output_param.file_name; name the file to write", NetError)
        self._rows = HDF5Rows(name)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        for index, blob in enumerate(bottom):
            if not 1 <= len(blob.shape) <= 4:
                raise self.error(f"bottom {index} has shape {blob.shape}; it takes 1 to 4 axes")
        if bottom[0].shape[0] != bottom[1].shape[0]:
            raise self.error(f"bottoms of shapes {bottom[0].shape} and {bottom[1].shape} differ in their first axis; "
                             "each row of data needs one of label")
        super().reshape(bottom, top)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        log.info("Saving HDF5 file %s", self._rows.path, extra={"origin": "hdf5_output_layer.cpp:33"})
        self._rows.append(*(blob.value.read(HOST).reshape(blob.shape + (1,) * (4 - len(blob.shape)))
                            for blob in bottom))
        log.info("Successfully saved %d rows", bottom[0].shape[0], extra={"origin": "hdf5_output_layer.cpp:38"})

    def close(self) -> None:
        if hasattr(self, "_rows"):  # a setup that failed has opened none
            self._rows.close()
