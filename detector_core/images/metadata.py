"""Strips an image file of metadata that may identify its owner: EXIF, XMP, comments, thumbnails, trailing bytes.

JPEG and PNG keep their compressed pixels byte for byte, which preserves the traces that a detector needs. All other
files, and those that do not decode to the same pixels afterward, are saved losslessly as PNG. The orientation is kept.
"""

import io
import struct
from typing import Final

import numpy as np
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images import png
from detector_core.images.decode import Pixels, decode

_ORIENTATION: Final = 0x0112
_APP0, _APP14, _APP15, _COMMENT, _SOS, _EOI = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_PNG_KEPT: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"sRGB", b"cHRM", b"sBIT"}


def strip(data: bytes, image_HWC: Pixels | None = None) -> tuple[bytes, str]:
    """Removes the metadata; returns the bytes of the new file and its suffix, ``.jpg`` or ``.png``.

    Args:
        data: the bytes of the image file.
        image_HWC: the decoded image, if it is known already.

    Raises:
        BadImage: the bytes are not a complete image.
    """
    image_HWC = decode(data) if image_HWC is None else image_HWC
    for suffix, strip_format in ((".jpg", _jpeg), (".png", _png)):
        stripped = strip_format(data)
        if stripped is not None and _decodes_to(stripped, image_HWC):
            return stripped, suffix
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def _decodes_to(data: bytes, image_HWC: Pixels) -> bool:
    try:
        return np.array_equal(decode(data, max_pixels=image_HWC.size), image_HWC)
    except BadImage:
        return False


def _jpeg(data: bytes) -> bytes | None:
    """The segments with tables and scans up to the first end of image; None if this is not a well-formed JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    kept, offset = [data[:2]], 2
    while offset + 4 <= len(data):
        marker = data[offset + 1]
        if data[offset] != 0xFF or marker == 0:  # bytes between two segments, which decoders skip
            return None
        if marker == _EOI:
            break
        if marker == 0xFF:  # padding
            offset += 1
            continue
        if marker in _STANDALONE:
            kept.append(data[offset : offset + 2])
            offset += 2
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == _SOS:
            end = _end_of_scan(data, end)
        if marker == _APP0:
            kept.append(_without_thumbnail(data[offset:end]))
        elif marker == _APP14 or not (marker == _COMMENT or _APP0 < marker <= _APP15):
            kept.append(data[offset:end])
        offset = end
    orientation = _orientation(data)
    if orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        content = exif.tobytes()
        kept.insert(1, b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content)
    return b"".join([*kept, b"\xff\xd9"])


def _without_thumbnail(segment: bytes) -> bytes:
    """The JFIF header reduced to its 18 fixed bytes; nothing of any other APP0 segment (a thumbnail or text)."""
    return segment[:2] + b"\0\x10" + segment[4:16] + b"\0\0" if segment[4:9] == b"JFIF\0" else b""


def _end_of_scan(data: bytes, offset: int) -> int:
    """The offset of the marker after a scan; within a scan, 0xFF is followed by 0 or a restart marker."""
    while (offset := data.find(b"\xff", offset)) != -1 and offset + 1 < len(data):
        if data[offset + 1] != 0 and data[offset + 1] not in _STANDALONE:
            return offset
        offset += 2
    return len(data)


def _orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _png(data: bytes) -> bytes | None:
    """The chunks that affect the pixels; None if this is not a PNG."""
    if not data.startswith(png.SIGNATURE):
        return None
    return png.SIGNATURE + b"".join(data[c.start : c.end] for c in png.chunks(data) if c.name in _PNG_KEPT)
