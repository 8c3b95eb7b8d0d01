"""Strips an image file of metadata that may identify its owner: EXIF, XMP, comments, thumbnails, trailing bytes.

JPEG, PNG, WebP, AVIF, HEIC and GIF keep their compressed pixels byte for byte, which preserves the traces that a
detector needs. Other files, and those that do not decode to the same pixels afterward, are saved losslessly as PNG. The
orientation is kept.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images import png, segmented, structure
from detector_core.images.decode import Pixels, decode

MAX_GROWTH, MIN_BYTES = 4, 2**20
"""Limit on a file that is saved as PNG: a multiple of the original's size, or the fixed number if that is larger."""
_SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif", "GIF": ".gif", "HEIC": ".heic"}
_TURN: Final[dict[str, Callable[[bytes, int], bytes | None]]] = {
    "JPEG": segmented.turned_jpeg,
    "PNG": png.turned_png,
    "WEBP": segmented.turned_webp,
}


def strip(data: bytes, image_HWC: Pixels | None = None) -> tuple[bytes, str]:
    """Removes the metadata; returns the bytes of the new file and its suffix, such as ``.jpg``.

    Args:
        data: the bytes of the image file.
        image_HWC: the decoded image, if it is known already.

    Raises:
        BadImage: the bytes are not a complete image, or would become many times larger without metadata.
    """
    image_HWC = decode(data) if image_HWC is None else image_HWC
    file = structure.reduce(data)
    if file.format in _SUFFIXES:
        stripped = _TURN[file.format](file.data, file.orientation) if file.format in _TURN else file.data
        if stripped is not None and _decodes_to(stripped, image_HWC):
            return stripped, _SUFFIXES[file.format]
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    if buffer.tell() > max(MAX_GROWTH * len(data), MIN_BYTES):
        raise BadImage(
            f"this {file.format} image can only be stored as PNG, which is {buffer.tell() / len(data):.0f} times as "
            "large: save it as JPEG, PNG or WebP"
        )
    return buffer.getvalue(), ".png"


def _decodes_to(data: bytes, image_HWC: Pixels) -> bool:
    try:
        return np.array_equal(decode(data, max_pixels=image_HWC.size), image_HWC)
    except BadImage:
        return False
