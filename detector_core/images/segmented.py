"""Walks image files whose parts follow one another: JPEG, WebP and GIF. PNG is in :mod:`detector_core.images.png`.

Each walker keeps the parts that the pixels of the first image depend on. None decompresses anything, and none fails on
damage that a decoder would not notice either; a part that is cut off is kept as it is.
"""

import re
from collections.abc import Iterator
from typing import Final

from detector_core.errors import BadImage
from detector_core.images.image_file import EXIF_HEADER, MAX_PARTS, ImageFile, write_orientation

MAX_SCANS: Final = 200
MAX_SCAN_PIXELS: Final = 10**9
"""Maximum number of scans in a JPEG, and of its scans times its pixels: twenty scans of the largest image. Encoders
write about ten. Each scan costs a pass over the image, and a file of a few megabytes can hold a million of them."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8), _EOI}
_FRAME_HEADERS: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = {0xC0, 0xC1}
"""Frame headers of a JPEG with Huffman codes that is not progressive."""
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd7]")
"""Within a scan, 0xFF is followed by 0 or a restart marker. No run of 0xFF makes these expressions slow."""


_WEBP_KEPT: Final = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_EXIF_FLAG, _METADATA_FLAGS = 0x08, 0x2C
"""Bits of a WebP's VP8X chunk that announce EXIF, and a color profile, EXIF or XMP."""


def reduce_jpeg(data: bytes) -> ImageFile:
    """Up to the end of the first image; what follows may be other images or a clip. Raises BadImage: too many scans."""
    kept, dropped, exif, scans, pixels, sequential = [data[:2]], 0, b"", 0, 0, False
    for marker, segment in walk_segments(data):
        if marker in _FRAME_HEADERS:
            if pixels:
                raise BadImage("damaged image: the JPEG has more than one frame header")
            pixels = int.from_bytes(segment[5:7], "big") * int.from_bytes(segment[7:9], "big")
            sequential = marker in _SEQUENTIAL
        elif marker == _SOS:
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_SCAN_PIXELS:
                raise BadImage(f"damaged image: the JPEG has too many scans for its size ({scans} or more)")
        elif marker == _APP1 and segment[4:10] == EXIF_HEADER:
            exif = exif or segment[4:]
        if marker == _APP0:
            kept.append(_without_thumbnail(segment))
        elif marker == _COMMENT or (_APP0 < marker <= _APP15 and marker != _APP14):
            dropped += len(segment) - 4
        else:
            kept.append(segment)
    return ImageFile.reduced("JPEG", kept, dropped, exif, is_plain=sequential and scans == 1)


def walk_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the bytes of each segment up to the end of the image; a scan has its compressed pixels.

    Bytes between two segments are skipped, as decoders do.
    """
    at = 2
    for _ in range(MAX_PARTS):
        match = _MARKER.search(data, at)
        if match is None:
            return
        start, at = match.span()
        marker = data[at - 1]
        if marker not in _STANDALONE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == _SOS:
            following = _MARKER_IN_SCAN.search(data, at)
            at = following.start() if following else len(data)
        yield marker, data[start:at]
        if marker == _EOI:
            return
    raise BadImage(f"damaged image: the JPEG has more than {MAX_PARTS:,} segments")


def _without_thumbnail(segment: bytes) -> bytes:
    """The JFIF header reduced to its 18 fixed bytes; nothing of any other APP0 segment (a thumbnail or text)."""
    return segment[:2] + b"\0\x10" + segment[4:16] + b"\0\0" if segment[4:9] == b"JFIF\0" else b""


def turned_jpeg(data: bytes, orientation: int) -> bytes:
    """A reduced JPEG with an EXIF orientation, and with an end if it has none."""
    exif = EXIF_HEADER + write_orientation(orientation)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif if orientation != 1 else b""
    return data[:2] + segment + data[2:] + (b"" if data.endswith(b"\xff\xd9") else b"\xff\xd9")


def reduce_webp(data: bytes) -> ImageFile:
    """Without color profile, EXIF, XMP and unknown chunks; of an animation, the first frame."""
    kept: dict[bytes, bytes] = {}
    dropped, exif, frames = 0, b"", 0
    for name, at, content, end in walk_webp(data):
        if name == b"VP8X":
            kept.setdefault(name, _with_flags(data[at:end], clear=_METADATA_FLAGS))
        elif name in _WEBP_KEPT:
            kept.setdefault(name, data[at:end])
        else:
            dropped += max(0, end - at - 8)
            exif = exif or (data[content] if name == b"EXIF" else b"")
        frames += name == b"ANMF"
    parts, is_plain = [_riff(b"".join(kept.values()))], kept.keys() == {b"VP8 "}
    return ImageFile.reduced("WEBP", parts, dropped, exif, is_plain=is_plain, animated=frames > 1)


def walk_webp(data: bytes) -> Iterator[tuple[bytes, int, slice, int]]:
    """The name, the start, where the content is, and the end of each chunk. Raises BadImage if there are too many."""
    at, stop = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MAX_PARTS):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = min(stop, at + 8 + size + size % 2)
        yield name, at, slice(at + 8, at + 8 + size), end
        at = end
        if at + 8 > stop:
            return
    raise BadImage(f"damaged image: the WebP has more than {MAX_PARTS:,} chunks")


def turned_webp(data: bytes, orientation: int) -> bytes:
    """A reduced WebP with an EXIF orientation; only a file with a VP8X chunk can have one."""
    if orientation == 1 or data[12:16] != b"VP8X":
        return data
    exif = write_orientation(orientation)
    chunk = b"EXIF" + len(exif).to_bytes(4, "little") + exif
    return _riff(_with_flags(data[12:], set_=_EXIF_FLAG) + chunk)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def _with_flags(chunks: bytes, *, clear: int = 0, set_: int = 0) -> bytes:
    """Chunks of which the first is VP8X, with bits of its flags cleared and set."""
    return chunks[:8] + bytes(flags & ~clear | set_ for flags in chunks[8:9]) + chunks[9:]


def reduce_gif(data: bytes) -> ImageFile:
    """The screen, the first frame, and the last graphic control block before it, which has the transparent color."""
    at, parts, control, dropped = 13 + _palette_bytes(data[10:11]), 0, b"", 0
    screen = data[:at]
    while parts < MAX_PARTS:
        start, kind = at, data[at : at + 1]
        if kind == b",":
            at, parts = _sub_blocks(data, start + 11 + _palette_bytes(data[start + 9 : start + 10]), parts)
            end = b";" if data[at - 1 : at] == b"\0" else b""  # none if the frame is cut off
            more = data[at : at + 1] not in (b";", b"")
            return ImageFile.reduced("GIF", [screen, control, data[start:at], end], dropped, b"", animated=more)
        if kind != b"!":
            raise BadImage("damaged image: the GIF has no frame")
        at, parts = _sub_blocks(data, start + 2, parts + 1)
        if data[start + 1 : start + 2] == b"\xf9":
            control = data[start:at]
        else:
            dropped += at - start
    raise BadImage(f"damaged image: the GIF has more than {MAX_PARTS:,} blocks")


def _palette_bytes(flags: bytes) -> int:
    """Size of the color table that a byte of flags announces."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _sub_blocks(data: bytes, at: int, parts: int) -> tuple[int, int]:
    """Where a chain of sub-blocks ends, and ``parts`` plus their number."""
    while at < len(data) and data[at] and parts < MAX_PARTS:
        at, parts = at + 1 + data[at], parts + 1
    return at + 1, parts
