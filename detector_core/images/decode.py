"""The strict image decoder that preparation, training and serving share: bytes -> image_HWC.

It does not need PyTorch, so that a process which only inspects files stays small and starts quickly. The format is
determined by the bytes alone; file names and content types are ignored.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from detector_core.errors import BadImage, TooManyPixels, UnsupportedFormat

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
MAX_SCANS: Final = 200
"""Maximum number of scans in a JPEG; encoders write about ten. Each scan costs a pass over the image, and a file of a
few megabytes can hold a million scans of a few bytes."""

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]
"""heat_HW: how much each pixel of an image contributes to a label, 0 to 1."""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    RuntimeError,
    struct.error,
)
"""Errors that Pillow raises on damaged files, depending on the format and the damage."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes an image to image_HWC, uint8 RGB 0-255, with the EXIF orientation applied.

    The size is checked before anything is decoded. A truncated file is an error; its missing part is never filled with
    gray. Transparent pixels are composited on white, 16-bit values are reduced to 8 bits, and of an animation only the
    first frame is decoded.

    Args:
        data: the bytes of the file.
        max_pixels: maximum width times height.

    Raises:
        BadImage: the bytes are not an image in a known format, or are damaged.
        UnsupportedFormat: a HEIC image, which Pillow cannot read.
        TooManyPixels: the image has more than ``max_pixels``.
    """
    with _opened(data, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_rgb(image))


def read_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height according to the header, before EXIF orientation; raises the same errors as :func:`decode`."""
    with _opened(data, max_pixels) as image:
        width, height = image.size
        return width, height


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    if not data:
        raise BadImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = _largest_buffer(image)
            if width * height > max_pixels:
                raise TooManyPixels(f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed")
            if image.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
                raise BadImage(f"damaged image: the JPEG has more than {MAX_SCANS} scans")
            yield image
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
            raise UnsupportedFormat(
                "HEIC images cannot be read: save the image as JPEG, or set the phone to do so"
            ) from None
        raise BadImage(f"not an image: known formats are {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TooManyPixels(f"the image has more pixels than the {max_pixels:,} allowed") from None
    except _DAMAGED as error:
        raise BadImage(f"damaged image: {error}") from None


def _largest_buffer(image: Image.Image) -> tuple[int, int]:
    """Width and height of the image or, if larger, of its tiles: a TIFF may declare tiles larger than itself."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
        return max((width, height), tile, key=lambda size: size[0] * size[1])
    return width, height


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip values above 255 to white
        values_HW = np.asarray(image)
        return Image.fromarray((values_HW.clip(0, 2**16 - 1) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("the image has floating-point pixels: save it with 8 bits per channel")
    if not image.has_transparency_data:
        return image.convert("RGB")
    foreground = image.convert("RGBA")
    composite = Image.new("RGBA", foreground.size, "white")
    composite.alpha_composite(foreground)
    return composite.convert("RGB")
