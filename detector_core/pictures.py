"""Bytes -> image_HWC: the strict decoder that preparing, training and serving share.

It needs no PyTorch, so that a process which only looks at files stays small and starts at once.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from detector_core.errors import BadImage, TooManyPixels

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")

Pixels = NDArray[np.uint8]


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture's bytes as image_HWC, uint8 RGB 0-255; the first frame of an animation; EXIF orientation applied.

    The size is checked before anything is decoded; a truncated file is an error and never a grey half.

    Raises:
        BadImage: not a picture of a known format, or truncated.
        TooManyPixels: larger than ``max_pixels``.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise TooManyPixels(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except UnidentifiedImageError:
        raise BadImage(f"not a picture: known formats are {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TooManyPixels(f"too many pixels: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        raise BadImage(f"damaged picture: {error}") from None
