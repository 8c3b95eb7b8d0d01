"""An image's file without what it says about its owner: EXIF with places and times, XMP, comments, thumbnails, tails.

JPEG and PNG keep their compressed pixels byte for byte, so that the traces a detector lives on stay; anything else, and
whatever does not decode to the same pixels afterwards, is stored anew as PNG, without loss. The orientation is kept.
"""

import io
import struct
from typing import Final

import numpy as np
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images.decode import Pixels, decode

_ORIENTATION: Final = 0x0112
_APP0, _APP14, _APP15, _COMMENT, _SOS, _EOI = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_PNG_KEPT: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"sRGB", b"cHRM", b"sBIT"}


def strip(data: bytes, image_HWC: Pixels | None = None) -> tuple[bytes, str]:
    """The file without metadata, and its suffix: ``.jpg`` or ``.png``.

    Args:
        image_HWC: what ``decode`` gives for ``data``, where it is known already.

    Raises:
        BadImage: not a whole image.
    """
    image_HWC = decode(data) if image_HWC is None else image_HWC
    for suffix, strip_format in ((".jpg", _jpeg), (".png", _png)):
        bare = strip_format(data)
        if bare is not None and _shows(bare, image_HWC):
            return bare, suffix
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def _shows(bare: bytes, image_HWC: Pixels) -> bool:
    try:
        return np.array_equal(decode(bare, max_pixels=image_HWC.size), image_HWC)
    except BadImage:
        return False


def _jpeg(data: bytes) -> bytes | None:
    """Segments of tables and scans up to the first end of image; None where this is no JPEG that can be followed."""
    if data[:2] != b"\xff\xd8":
        return None
    kept, place = [data[:2]], 2
    while place + 4 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0:  # a decoder skips what is between two segments
            return None
        if marker == _EOI:
            break
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker in _STANDALONE:
            kept.append(data[place : place + 2])
            place += 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SOS:
            end = _end_of_scan(data, end)
        if marker == _APP0:
            kept.append(_without_thumbnail(data[place:end]))
        elif marker == _APP14 or not (marker == _COMMENT or _APP0 < marker <= _APP15):
            kept.append(data[place:end])
        place = end
    turned = _orientation(data)
    if turned != 1:
        exif = Image.Exif()
        exif[_ORIENTATION] = turned
        said = exif.tobytes()
        kept.insert(1, b"\xff\xe1" + struct.pack(">H", len(said) + 2) + said)
    return b"".join([*kept, b"\xff\xd9"])


def _without_thumbnail(segment: bytes) -> bytes:
    """JFIF's own header, of any size, as one of 18 bytes; nothing of another APP0, which holds a thumbnail or words."""
    return segment[:2] + b"\0\x10" + segment[4:16] + b"\0\0" if segment[4:9] == b"JFIF\0" else b""


def _end_of_scan(data: bytes, place: int) -> int:
    """Where the next marker stands: in a scan, 0xFF is followed by 0 or a restart marker."""
    while (place := data.find(b"\xff", place)) != -1 and place + 1 < len(data):
        if data[place + 1] != 0 and data[place + 1] not in _STANDALONE:
            return place
        place += 2
    return len(data)


def _orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _png(data: bytes) -> bytes | None:
    """The chunks that draw the image; None where this is no PNG that can be followed."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        name = data[place + 4 : place + 8]
        if name in _PNG_KEPT:
            kept.append(data[place:end])
        if name == b"IEND":
            break
        place = end
    return b"".join(kept)
