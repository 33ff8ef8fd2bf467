"""``caffe.Classifier``: a net that says what images show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import io
from .errors import DataError, NetError
from .net import Net
from .proto.caffe_pb2 import TEST

Array = npt.NDArray[Any]


def input_transformer(net: Net, mean: Array | None = None, input_scale: float | None = None,
                      raw_scale: float | None = None, channel_swap: Sequence[int] | None = None) -> io.Transformer:
    """What turns images, (H,W,K), into what the first input of a net takes.

    Raises
    ------
    NetError : the net has no input of images
    """
    shape = net.blobs[net.inputs[0]].data.shape if net.inputs else ()
    if len(shape) != 4:
        raise NetError(f"net {net.name!r}: has no input of images, (N,K,H,W)"
                       + (f", but {net.inputs[0]!r} of shape {shape}" if net.inputs else "")
                       + "; give a deploy definition, with an Input layer in the place of the data layers")
    name = net.inputs[0]
    transformer = io.Transformer({name: shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer


class Classifier(Net):
    """A net in the phase TEST whose first input takes images and whose first output is a number for each class.

    Parameters
    ----------
    model_file : the definition, with an Input layer
    pretrained_file : the caffemodel
    image_dims : height and width that images are resized to before they are cropped, in pixels; None: the input's
    mean : what is subtracted: a number for each channel or an image, as the input has them
    input_scale, raw_scale : factors after and before the mean is subtracted
    channel_swap : order of channels; (2, 1, 0) makes blue, green, red of red, green, blue

    Raises
    ------
    DataError : image_dims are smaller than what the net takes
    NetError : the net has no input of images
    """

    def __init__(self, model_file: str | os.PathLike[str], pretrained_file: str | os.PathLike[str],
                 image_dims: Sequence[int] | None = None, mean: Array | None = None,
                 input_scale: float | None = None, raw_scale: float | None = None,
                 channel_swap: Sequence[int] | None = None) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = input_transformer(self, mean, input_scale, raw_scale, channel_swap)
        # Arrays, as scripts for pycaffe know them.
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)
        if (self.image_dims < self.crop_dims).any():
            raise DataError(f"image_dims of {tuple(self.image_dims.tolist())} are smaller than what net {self.name!r} "
                            f"takes, {tuple(self.crop_dims.tolist())}; make them as large or larger")

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Array:
        """Classify images.

        Parameters
        ----------
        inputs : (H,W,K) each, of any size, as `caffe.io.load_image` gives them
        oversample : average over ten crops, see `caffe.io.oversample`; False: the centre alone

        Returns
        -------
        (images, classes), the net's output
        """
        if not len(inputs):
            raise DataError("predict was given no image; give a list of one or more")
        resized = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        if oversample:
            crops = io.oversample(resized, self.crop_dims)
        else:
            top, left = (self.image_dims - self.crop_dims) // 2
            height, width = self.crop_dims
            crops = resized[:, top:top + height, left:left + width]
        name = self.inputs[0]
        batch = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        given: dict[str, Any] = {name: batch}
        predictions: Array = self.forward_all(**given)[self.outputs[0]]
        if oversample:
            return predictions.reshape(len(inputs), 10, -1).mean(1)
        return predictions
