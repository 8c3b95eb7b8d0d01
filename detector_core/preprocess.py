"""Bytes -> image_HWC -> x_CHW: the one path that training, evaluation and serving share.

The steps are decode (strict, EXIF orientation applied, RGB), a square of ``image_size`` (shorter side resized, centre
cropped), normalisation. Training puts augmentation between the second and the third. The :class:`PreprocessSpec`
that steers them is kept with the weights.
"""

import io
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from detector_core.config import PreprocessSpec
from detector_core.errors import BadImage

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Pixels = NDArray[np.uint8]


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture's bytes as image_HWC, uint8 RGB 0-255; the first frame of an animation; EXIF orientation applied.

    The size is checked before anything is decoded; a truncated file is an error and never a grey half.

    Raises:
        BadImage: not a picture of a known format, truncated, or larger than ``max_pixels``.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise BadImage(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")
                return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except UnidentifiedImageError:
        raise BadImage(f"not a picture: known formats are {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"too many pixels: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        raise BadImage(f"damaged picture: {error}") from None


def square(image_HWC: Pixels, spec: PreprocessSpec) -> Pixels:
    """The centre square of a picture at ``image_size``: image_SSC uint8. A square picture is only resized."""
    height, width = image_HWC.shape[:2]
    side, size = min(height, width), spec.image_size
    if (height, width) == (size, size):
        return image_HWC
    left, top = (width - side) / 2, (height - side) / 2
    resized = Image.fromarray(image_HWC).resize(
        (size, size), _RESAMPLING[spec.interpolation], box=(left, top, left + side, top + side)
    )
    return np.asarray(resized)


def normalize(image_SSC: Pixels, spec: PreprocessSpec) -> torch.Tensor:
    """x_CHW float32: channels ordered, scaled to 0-1, mean subtracted, divided by std."""
    pixels = image_SSC[..., ::-1] if spec.channels == "BGR" else image_SSC
    x_HWC = (pixels.astype(np.float32) / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    return torch.from_numpy(np.ascontiguousarray(x_HWC.transpose(2, 0, 1)))


def to_input(image_HWC: Pixels, spec: PreprocessSpec) -> torch.Tensor:
    """A decoded picture as the network's input x_CHW float32, without augmentation."""
    return normalize(square(image_HWC, spec), spec)
