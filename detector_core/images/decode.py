"""The strict image decoder that preparation, training and serving share: bytes -> image_HWC.

It does not need PyTorch, so that a process which only inspects files stays small and starts quickly. The format is
determined by the bytes alone; file names and content types are ignored. What a file may cost is bounded by its
structure (:mod:`detector_core.images.structure`). Not in this module: bounds on time and memory, for files of strangers
(:mod:`detector_core.images.decoder`).
"""

import functools
import io
import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from detector_core.errors import BadImage, TooManyPixels
from detector_core.images import formats, structure
from detector_core.images.image_file import ORIENTATION, ImageFile

MAX_PIXELS = 50_000_000
FORMATS = formats.READABLE

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]
"""heat_HW: how much each pixel of an image contributes to a label, 0 to 1."""

_PILLOW_NAMES = {"HEIC": "HEIF"}
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    RuntimeError,
    AssertionError,
    struct.error,
)
"""Errors that Pillow raises on damaged files, depending on the format and the damage."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image_HWC, and what is known of its file.

    Attributes:
        metadata_intact: False if metadata was damaged or too large, and therefore ignored; if it said how to turn the
            image, the image is not turned.
        animated: whether the file has more frames than the decoded one.
        quantization: the luminance table of a JPEG, 64 numbers; None for other formats.
    """

    image_HWC: Pixels
    metadata_intact: bool = True
    animated: bool = False
    quantization: tuple[int, ...] | None = None


class OpenedImage:
    """An image whose header has been read.

    Attributes:
        file: the reduced file.
        header: Pillow's image, before :meth:`decode` loads and turns it.
        width, height: according to the header, before the EXIF orientation is applied, in pixels.
        quantization: see :class:`Decoded`.
    """

    def __init__(self, file: ImageFile, header: Image.Image) -> None:
        self.file, self.header = file, header
        self.width, self.height = header.size
        tables = getattr(header, "quantization", None)
        self.quantization = tuple(tables[min(tables)]) if tables else None

    def decode(self) -> Decoded:
        """See :func:`decode_file`. Raises BadImage."""
        with _translated_errors():
            if self.file.orientation != 1:
                self.header.getexif()[ORIENTATION] = self.file.orientation
            ImageOps.exif_transpose(self.header, in_place=True)
            return Decoded(
                image_HWC=np.asarray(_rgb(self.header)),
                metadata_intact=self.file.metadata_intact,
                animated=self.file.animated or getattr(self.header, "is_animated", False),
                quantization=self.quantization,
            )


@functools.cache
def load_heic() -> None:
    """Teaches Pillow to read HEIC. Raises ImportError if the optional package pi-heif is not installed."""
    import pi_heif

    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


@contextmanager
def opened(data: bytes, *, max_pixels: int = MAX_PIXELS, accepted: Collection[str] = FORMATS) -> Iterator[OpenedImage]:
    """Opens an image without decoding it; takes the arguments of :func:`decode_file` and raises the same errors."""
    with opened_file(structure.reduce(data, accepted), max_pixels=max_pixels) as image:
        yield image


@contextmanager
def opened_file(file: ImageFile, *, max_pixels: int = MAX_PIXELS) -> Iterator[OpenedImage]:
    """:func:`opened` for a file that is reduced already."""
    if file.format == "HEIC":
        load_heic()
    with _translated_errors(max_pixels):
        header = Image.open(io.BytesIO(file.data), formats=(_PILLOW_NAMES.get(file.format, file.format),))
    with header:
        width, height = header.size
        if max(width * height, file.buffer_pixels) > max_pixels:
            size = f"{width} x {height}" if width * height > max_pixels else f"{file.buffer_pixels:,}"
            raise _too_many_pixels(size, max_pixels)
        yield OpenedImage(file, header)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """:func:`decode_file` for callers that need only the pixels: image_HWC."""
    return decode_file(data, max_pixels=max_pixels).image_HWC


def decode_file(data: bytes, *, max_pixels: int = MAX_PIXELS, accepted: Collection[str] = FORMATS) -> Decoded:
    """Decodes an image to image_HWC, uint8 RGB 0-255, with the EXIF orientation applied.

    The size is checked before anything is decoded. A truncated file is an error; its missing part is never filled with
    gray. The pixels count: damaged metadata is ignored. Transparent pixels are composited on white, 16-bit values are
    reduced to 8 bits, and of an animation only the first frame is decoded.

    Args:
        data: the bytes of the file.
        max_pixels: maximum width times height.
        accepted: those of FORMATS that are accepted.

    Raises:
        NotAnImage: the bytes are not an image in a known format.
        BadImage: the image is damaged, or would cost far more work than its pixels justify.
        UnsupportedFormat: a format that is not accepted, or cannot be read (HEIC without pi-heif, some kinds of TIFF).
        TooManyPixels: the image has more than ``max_pixels``.
    """
    with opened(data, max_pixels=max_pixels, accepted=accepted) as image:
        return image.decode()


@contextmanager
def _translated_errors(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise BadImage("damaged image: its header cannot be read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        found = re.search(r"\d+", str(error))  # Pillow tells the size of the header only in its message
        raise _too_many_pixels(f"{int(found[0]):,}" if found else "far too many", max_pixels) from None
    except _DAMAGED as error:
        raise BadImage(f"damaged image: {str(error) or 'its parts contradict each other'}") from None


def _too_many_pixels(found: str, max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"the image has {found} pixels, more than the {max_pixels:,} allowed: scale it down")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip values above 255 to white
        values_HW = np.asarray(image)
        return Image.fromarray((values_HW.clip(0, 2**16 - 1) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("the image has floating-point pixels: save it with 8 bits per channel")
    if image.mode in ("P", "PA") and image.palette is None:
        raise BadImage("damaged image: its palette is missing")
    if not image.has_transparency_data:
        return image.convert("RGB")
    foreground = image.convert("RGBA")
    composite = Image.new("RGBA", foreground.size, "white")
    composite.alpha_composite(foreground)
    return composite.convert("RGB")
