"""Bytes -> image_HWC: the strict decoder that preparing, training and serving share.

It needs no PyTorch, so that a process which only looks at files stays small and starts at once. What a file is, its
own bytes say: names and content types are not asked for.
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
"""Most scans of a JPEG; an encoder writes about ten. Each costs a pass over the image, and a file of some megabytes
has room for a million scans of a few bytes."""

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]
"""heat_HW: how much each place of an image speaks for a label, 0 to 1."""

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
"""What Pillow raises on damaged files, by format and by what is damaged."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """An image's bytes as image_HWC, uint8 RGB 0-255; the first frame of an animation; EXIF orientation applied.

    The size is checked before anything is decoded; a truncated file is an error and never a grey half. Transparency is
    laid on white, sixteen bits are cut to eight.

    Raises:
        BadImage: not an image of a known format, or truncated.
        UnsupportedFormat: a HEIC image, which Pillow does not read.
        TooManyPixels: larger than ``max_pixels``.
    """
    with _opened(data, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_rgb(image))


def read_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height that the header states, before orientation; nothing is decoded. Raises as :func:`decode`."""
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
                raise TooManyPixels(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")
            if image.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
                raise BadImage(f"damaged image: a JPEG with more than {MAX_SCANS} scans")
            yield image
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
            raise UnsupportedFormat("HEIC images are not read: save it as JPEG, or let the phone do so") from None
        raise BadImage(f"not an image: known formats are {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TooManyPixels(f"more pixels than the {max_pixels:,} allowed") from None
    except _DAMAGED as error:
        raise BadImage(f"damaged image: {error}") from None


def _largest_buffer(image: Image.Image) -> tuple[int, int]:
    """Width and height of the image, or of a tile of it: a TIFF may state tiles larger than itself."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
        return max((width, height), tile, key=lambda size: size[0] * size[1])
    return width, height


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip what is above 255 to white
        values_HW = np.asarray(image)
        return Image.fromarray((values_HW.clip(0, 2**16 - 1) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("an image of floating-point numbers: save it with 8 bits a channel")
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    below = Image.new("RGBA", seen.size, "white")
    below.alpha_composite(seen)
    return below.convert("RGB")
