"""Batches of image files that a list names."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from barista import rng as random
from barista.data.convert import read_numbered_list
from barista.data.images import read_image
from barista.data.order import Order
from barista.data.read_ahead import Batches, Room
from barista.data.transformer import Transformer
from barista.errors import DataError

logger = logging.getLogger("barista.data")


class ImageBatches(Batches):
    """Reads, resizes and transforms the images of a list: data (N,C,h,w) and labels (N,).

    Parameters
    ----------
    source : list of ``name label`` lines
    batch_size : images in a batch
    transformer : what happens to each image; its random numbers shuffle too
    root_folder : text put before each name as it is
    color : 3 channels (BGR) instead of 1
    height, width : size to resize to, in pixels; 0 and 0 keep the files' own
    shuffle : take them in random order, drawn anew each turn
    rand_skip : begin a random number of lines, below this, further on

    Raises
    ------
    DataError
        If the list, its first image or a number given cannot be used.

    Notes
    -----
    Caffe: each batch has the size of its first image, so that batches of one may differ.
    """

    def __init__(self, source: str, batch_size: int, transformer: Transformer, *, root_folder: str = "",
                 color: bool = True, height: int = 0, width: int = 0, shuffle: bool = False,
                 rand_skip: int = 0) -> None:
        self.name = f"image list {source!r}"
        if batch_size < 1:
            raise DataError(f"{self.name}: batch_size={batch_size} must be 1 or more")
        if bool(height) != bool(width):
            raise DataError(f"{self.name}: new_height={height} and new_width={width}; give both, or neither")
        self._source, self._root, self._color = source, root_folder, color
        self._height, self._width = height, width
        self._batch_size = batch_size
        self._transformer = transformer
        logger.info("Opening file %s", source, extra={"origin": "image_data_layer.cpp:38"})
        self._lines = read_numbered_list(source)
        if shuffle:
            logger.info("Shuffling data", extra={"origin": "image_data_layer.cpp:51"})
        self._order = Order(len(self._lines), transformer.rng if shuffle else None)
        logger.info("A total of %d images.", len(self._lines), extra={"origin": "image_data_layer.cpp:63"})
        self._place = 0
        if rand_skip:
            self._place = int(transformer.rng.integers(0, rand_skip))
            logger.info("Skipping first %d data points.", self._place, extra={"origin": "image_data_layer.cpp:70"})
            if self._place >= len(self._lines):
                raise DataError(f"{self.name}: has {len(self._lines)} lines, fewer than the {self._place + 1} that "
                                f"rand_skip={rand_skip} may ask for; lower it")
        self._set_shapes(self._read(int(self._order.places[self._place])))

    def _read(self, index: int) -> np.ndarray:
        name, _, number = self._lines[index]
        try:
            image = read_image(self._root + name, color=self._color, height=self._height, width=self._width)
            self._transformer.output_shape(*image.shape)
        except DataError as error:
            absent = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
            hint = f" (root_folder {self._root!r} is put before the names of the list as it is)" if absent else ""
            raise DataError(f"{self._source}:{number}: {error}{hint}") from error
        return image

    def _set_shapes(self, image: np.ndarray) -> None:
        size = self._batch_size
        self.shapes = ((size, *self._transformer.output_shape(*image.shape)), (size,))

    def fill(self, room: Room) -> None:
        images: list[np.ndarray] = []
        labels = []
        for row in range(self._batch_size):
            index = int(self._order.places[self._place])
            name, label, number = self._lines[index]
            image = self._read(index)
            if not row:
                self._set_shapes(image)
            elif self._transformer.output_shape(*image.shape) != self.shapes[0][1:]:
                raise DataError(f"{self._source}:{number}: image {name!r} has shape {image.shape}, the first of its "
                                f"batch {images[0].shape}; give new_height and new_width, or crop_size")
            images.append(image)
            labels.append(label)
            self._place += 1
            if self._place == len(self._lines):
                self._place = 0
                self._order.draw()
        data, out = room.arrays(self.shapes)
        self._transformer.transform_batch(images, data)
        out[:] = labels

    def state(self) -> dict[str, Any]:
        """``line``, of the next image in order, ``order``, and ``rng``, where the random numbers stand."""
        return {"line": self._place, "order": self._order.state(), "rng": random.state_of(self._transformer.rng)}

    def restore(self, state: dict[str, Any]) -> None:
        try:
            place, order, stand = int(state["line"]), state["order"], state["rng"]
        except (KeyError, TypeError, ValueError) as error:
            raise self.bad_state(error) from error
        if not 0 <= place < len(self._lines):
            raise DataError(f"{self.name}: cannot go to image {place}, it has {len(self._lines)}; was it changed "
                            "since that place was noted?")
        self._order.restore(order)
        random.restore(self._transformer.rng, stand)
        self._place = place
