"""Reduces an image file to the parts that its pixels depend on, before a decoder sees it.

A decoder spends time and memory on everything in a file, and a broken text or color profile makes it refuse sound
pixels. So each format has a walker that follows the file's own structure to the end of its first image, drops metadata
and whatever follows, and bounds what few bytes can make a decoder do: the number of parts, the passes of a progressive
JPEG, the tiles of a TIFF that share their bytes. Which format it is, its first
bytes say (:mod:`detector_core.images.formats`).
"""

from collections.abc import Callable, Collection
from typing import Final

from detector_core.errors import BadImage, FormatNotAccepted, NotAnImage, UnsupportedFormat
from detector_core.images import formats, offsets, png, segmented
from detector_core.images.image_file import ImageFile

_REDUCERS: Final[dict[str, Callable[[bytes], ImageFile]]] = {
    "JPEG": segmented.reduce_jpeg,
    "PNG": png.reduce_png,
    "WEBP": segmented.reduce_webp,
    "GIF": segmented.reduce_gif,
    "AVIF": offsets.reduce_avif,
    "HEIC": offsets.reduce_heic,
    "TIFF": offsets.reduce_tiff,
}


_HEIC_HINT: Final = (
    ", or set the phone to do so; where this program is installed, 'pip install pi-heif' adds the format"
)


def reduce(data: bytes, accepted: Collection[str] = formats.READABLE) -> ImageFile:
    """The file without metadata and without what follows its first image.

    Args:
        accepted: those of the readable formats that are accepted.

    Raises:
        NotAnImage: the bytes are not an image in a known format.
        BadImage: built so that decoding it costs far more than its pixels justify.
        UnsupportedFormat: a format that is not accepted (FormatNotAccepted), or that cannot be read.
    """
    name = _readable_format(data)
    if name not in accepted:
        others = ", ".join(accepted)
        raise FormatNotAccepted(f"{name} images are not accepted here: save the image as one of {others}")
    return _REDUCERS[name](data) if name in _REDUCERS else ImageFile(format=name, data=data)


def not_an_image() -> NotAnImage:
    """The error for bytes that do not begin like an image."""
    return NotAnImage(f"not an image: known formats are {', '.join(formats.READABLE)}")


def _readable_format(data: bytes) -> str:
    if not data:
        raise BadImage("the file is empty")
    name = formats.identify(data[: formats.HEAD_BYTES])
    if name is None:
        raise not_an_image()
    if name == "HEIC" and offsets.has_avif_brand(data):
        return "AVIF"
    if name not in formats.READABLE:
        hint = _HEIC_HINT if name == "HEIC" else ""
        raise UnsupportedFormat(f"{name} images cannot be read: save the image as JPEG{hint}")
    return name
