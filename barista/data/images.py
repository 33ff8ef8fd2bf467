"""Images as Caffe and OpenCV hold them: (C,H,W) uint8, channels blue, green, red.

Pillow reads and writes the files; the resizing rule is OpenCV's bilinear one
(two neighbours a direction, no smoothing before shrinking), which networks
trained with Caffe expect.
"""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, UnidentifiedImageError

from barista.errors import DataError, nearest

# What OpenCV reads too. Pillow knows more, some of which starts other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "SUN", "TIFF", "WEBP")
_ENCODINGS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP",
              "tif": "TIFF", "tiff": "TIFF", "ppm": "PPM", "pgm": "PPM"}
_JPEG_QUALITY = 95  # OpenCV's default


def read_image(path: str | os.PathLike[str], *, color: bool | None = True,
               height: int = 0, width: int = 0) -> np.ndarray:
    """Read an image file.

    Parameters
    ----------
    path : file to read
    color : True for 3 channels (BGR), False for 1 (grey), None for those the file has
    height, width : size to resize to, in pixels; 0 and 0 keep the file's own

    Returns
    -------
    np.ndarray : (C,H,W) uint8

    Raises
    ------
    DataError
        If the file cannot be read, is no image, or has too many pixels.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"image {name!r} cannot be read: {reason}") from error
    return resize(decode_image(data, color=color, name=name), height, width)


def decode_image(data: bytes, *, color: bool | None = True, name: str = "in memory") -> np.ndarray:
    """Decode the bytes of an image file to (C,H,W) uint8; see `read_image`.

    Notes
    -----
    Caffe: an orientation noted in a camera's file is not applied, transparency is
    dropped unless `color` is None, and JPEG grey is the file's own luma.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise DataError(f"image {name!r} has {image.width} x {image.height} pixels, more than the "
                                f"limit of {limit}; make it smaller")
            if color is False:
                image.draft("L", None)
            pixels = _pixels(image, color, name)
    except DataError:
        raise
    except UnidentifiedImageError:
        what = "it is empty" if not data else f"it is damaged, or no image of the formats {', '.join(_FORMATS)}"
        raise DataError(f"image {name!r} cannot be decoded: {what}") from None
    except Exception as error:
        # Pillow's plug-ins raise nearly anything on damaged data; each of it means that the image is bad.
        raise DataError(f"image {name!r} cannot be decoded: {error}") from error
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels[np.newaxis])
    if pixels.shape[2] == 4:
        pixels = pixels[:, :, [2, 1, 0, 3]]
    else:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def encode_image(image: np.ndarray, encoding: str) -> bytes:
    """Encode a (C,H,W) uint8 image as the bytes of a file.

    Parameters
    ----------
    image : 1 channel (grey) or 3 (BGR)
    encoding : file extension such as ``jpg`` or ``png``, with or without its dot
    """
    extension = encoding.lower().removeprefix(".")
    if extension not in _ENCODINGS:
        hint = nearest(extension, _ENCODINGS)
        raise DataError(f"cannot encode images as {encoding!r}; " + (hint or "use " + ", ".join(_ENCODINGS)))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"cannot encode an image of shape {image.shape} and dtype {image.dtype}; "
                        "it must be (1,H,W) or (3,H,W) of uint8")
    pixels = image[0] if image.shape[0] == 1 else image[::-1].transpose(1, 2, 0)
    buffer = io.BytesIO()
    try:
        file = Image.fromarray(np.ascontiguousarray(pixels))
        file.save(buffer, _ENCODINGS[extension], quality=_JPEG_QUALITY)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"image of shape {image.shape} cannot be encoded as {encoding!r}: {error}") from error
    return buffer.getvalue()


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a (C,H,W) uint8 image bilinearly; 0 and 0 keep the size.

    Notes
    -----
    Caffe: computed as OpenCV does, with weights of 11 bits and its order of shifts.
    """
    if (height > 0) != (width > 0) or height < 0 or width < 0:
        raise DataError(f"cannot resize an image to height {height} and width {width}; "
                        "give both above 0, or both 0 to keep the size")
    if height == 0 or image.shape[1:] == (height, width):
        return image
    left, right, left_weight, right_weight = _neighbours(image.shape[2], width)
    columns = (image[:, :, left] * left_weight + image[:, :, right] * right_weight) >> 4
    upper, lower, upper_weight, lower_weight = _neighbours(image.shape[1], height)
    pixels = (columns[:, upper] * upper_weight[:, np.newaxis]) >> 16
    pixels += (columns[:, lower] * lower_weight[:, np.newaxis]) >> 16
    return ((pixels + 2) >> 2).astype(np.uint8)


def _pixels(image: Image.Image, color: bool | None, name: str) -> np.ndarray:
    """Return (H,W), (H,W,3) RGB or (H,W,4) RGBA uint8 pixels of an open image."""
    if image.mode == "F" or (color is None and image.mode.startswith("I")):
        raise DataError(f"image {name!r} has samples of mode {image.mode!r}; only 8-bit samples can be used, "
                        "convert the file")
    if image.mode.startswith("I"):  # 16-bit grey: OpenCV keeps the upper byte
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2) if color else grey
    if color is None:
        alpha = image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info
        mode = "L" if image.mode in ("1", "L") else "RGBA" if alpha else "RGB"
    else:
        mode = "RGB" if color else "L"
        if not color and image.mode in ("P", "PA", "CMYK"):
            image = image.convert("RGB")
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _neighbours(source_size: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each of `size` pixels, its two source pixels and their weights, in 1/2048, as int32."""
    place = ((np.arange(size) + 0.5) * (source_size / size) - 0.5).clip(0, source_size - 1)
    low = place.astype(np.intp)
    share = (place - low).astype(np.float32)
    weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share)]
    return low, np.minimum(low + 1, source_size - 1), weights[0], weights[1]
