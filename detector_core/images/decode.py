"""The strict image decoder that preparation, training and serving share: bytes -> image_HWC.

It does not need PyTorch, so that a process which only inspects files stays small and starts quickly. The format is
determined by the bytes alone; file names and content types are ignored.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from detector_core.errors import BadImage, NotAnImage, TooManyPixels, UnsupportedFormat
from detector_core.images import formats, png

MAX_PIXELS = 50_000_000
FORMATS = formats.READABLE
MAX_SCANS: Final = 200
"""Maximum number of scans in a JPEG; encoders write about ten. Each scan costs a pass over the image, and a file of a
few megabytes can hold a million scans of a few bytes."""

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]
"""heat_HW: how much each pixel of an image contributes to a label, 0 to 1."""

_AVIF_HEAD_BYTES: Final = 2**16
_AVIF_EXIF: Final = re.compile(rb"(infe\x02.{3}.{2}.{2}|infe\x03.{3}.{4}.{2})Exif", re.DOTALL)
"""The entry of EXIF in the list of an AVIF file's items."""
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


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image_HWC, and what was not used of its file.

    Attributes:
        metadata_intact: False if metadata was damaged or too large, and therefore ignored; if it said how to turn the
            image, the image is not turned.
        animated: whether the file has more frames than the decoded one.
    """

    image_HWC: Pixels
    metadata_intact: bool = True
    animated: bool = False


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """:func:`decode_file` for callers that need only the pixels: image_HWC."""
    return decode_file(data, max_pixels=max_pixels).image_HWC


def decode_file(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decodes an image to image_HWC, uint8 RGB 0-255, with the EXIF orientation applied.

    The size is checked before anything is decoded. A truncated file is an error; its missing part is never filled with
    gray. The pixels count: damaged metadata is ignored. Transparent pixels are composited on white, 16-bit values are
    reduced to 8 bits, and of an animation only the first frame is decoded.

    Args:
        data: the bytes of the file.
        max_pixels: maximum width times height.

    Raises:
        NotAnImage: the bytes are not an image in a known format.
        BadImage: the image is damaged.
        UnsupportedFormat: a HEIC image, which Pillow cannot read.
        TooManyPixels: the image has more than ``max_pixels``.
    """
    reduced = _reduced(data)
    with _opened(reduced.data, max_pixels) as image:
        image.load()
        intact = _turn_upright(image) and reduced.metadata_intact
        # The second image of an MPO is a depth or gain map, or the other eye's, not the next frame.
        animated = reduced.animated or (image.format != "MPO" and getattr(image, "is_animated", False))
        return Decoded(image_HWC=np.asarray(_rgb(image)), metadata_intact=intact, animated=animated)


def not_an_image() -> NotAnImage:
    """The error for bytes that do not begin like an image."""
    return NotAnImage(f"not an image: known formats are {', '.join(FORMATS)}")


def read_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height according to the header, before EXIF orientation; raises the same errors as :func:`decode`."""
    with opened(data, max_pixels=max_pixels) as image:
        width, height = image.size
        return width, height


@contextmanager
def opened(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The file opened by Pillow, without the metadata that :func:`decode_file` ignores; raises the same errors."""
    with _opened(_reduced(data).data, max_pixels) as image:
        yield image


def _reduced(data: bytes) -> png.PixelFile:
    """The file without what Pillow would refuse the image for, although it does not make up the pixels."""
    if data.startswith(png.SIGNATURE):
        try:
            return png.reduce_to_pixels(data)
        except ValueError as error:
            raise BadImage(f"damaged image: {error}") from None
    if formats.identify(data[: formats.HEAD_BYTES]) == "AVIF":  # its own properties say how it is turned, not EXIF
        head = _AVIF_EXIF.sub(rb"\1free", data[:_AVIF_HEAD_BYTES])
        data = head + data[_AVIF_HEAD_BYTES:]
    return png.PixelFile(data=data, metadata_intact=True, animated=False)


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
        name = formats.identify(data[: formats.HEAD_BYTES])
        if name and name not in FORMATS:
            hint = ", or set the phone to do so" if name == "HEIC" else ""
            raise UnsupportedFormat(f"{name} images cannot be read: save the image as JPEG{hint}") from None
        raise (BadImage(f"damaged image: its {name} header cannot be read") if name else not_an_image()) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TooManyPixels(f"the image has more pixels than the {max_pixels:,} allowed") from None
    except _DAMAGED as error:
        raise BadImage(f"damaged image: {error}") from None


def _turn_upright(image: Image.Image) -> bool:
    """Applies the orientation in EXIF to a loaded image; returns False if EXIF is damaged."""
    try:
        if exif := image.info.get("exif"):
            Image.Exif().load(exif)  # Pillow may have ignored an error when it opened the file
        ImageOps.exif_transpose(image, in_place=True)
    except _DAMAGED:
        return False
    return True


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
