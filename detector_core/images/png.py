"""Walks the chunks of a PNG file, and drops those that do not make up the pixels of its first image.

Pillow refuses a whole image for an error in a text chunk, or for a text that is large when unpacked; images by
generators carry such texts.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from detector_core.errors import BadImage
from detector_core.images.image_file import MAX_PARTS, ImageFile, write_orientation

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_METADATA_BYTES: Final = 2**20
"""Maximum size of one piece of metadata, unpacked."""
MAX_UNPACKED_BYTES: Final = 4 * MAX_METADATA_BYTES
"""How many bytes of all metadata are unpacked, to learn their size."""
_FRAMES: Final = (b"acTL", b"fcTL", b"fdAT")
"""Chunks of an animation: how many frames it has, and those after the first."""
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_AFTER_HEADER: Final = len(SIGNATURE) + 25


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A complete chunk of a file, at ``data[start:end]``."""

    name: bytes
    start: int
    end: int

    @property
    def makes_pixels(self) -> bool:
        """Whether the pixels of the first frame depend on the chunk: critical chunks, and the transparent colors."""
        return not self.name[0] & 0x20 or self.name == b"tRNS"


def reduce_png(data: bytes) -> ImageFile:
    """Drops metadata, and all frames but the first. Raises BadImage if there are too many chunks."""
    kept, end, dropped, exif = [SIGNATURE], len(SIGNATURE), 0, b""
    intact, animated, budget = True, False, MAX_UNPACKED_BYTES
    for chunk in walk_chunks(data):
        end = chunk.end
        content = b"" if chunk.makes_pixels else data[chunk.start + 8 : end - 4]
        if chunk.makes_pixels:
            kept.append(data[chunk.start : end])
        elif chunk.name in _FRAMES:
            animated |= chunk.name == b"acTL" and int.from_bytes(content[:4], "big") > 1
        else:
            dropped += len(content)
            size: int | None = len(content)
            if zlib.crc32(chunk.name + content) != int.from_bytes(data[end - 4 : end], "big"):
                size = None
            elif (packed := compressed_part(chunk.name, content)) is not None:
                size = _unpacked_size(packed, budget)
                budget -= size or 0
            usable = size is not None and size <= MAX_METADATA_BYTES
            intact &= usable
            if chunk.name == b"eXIf" and usable:
                exif = exif or content
    if kept[-1][4:8] != b"IEND":
        kept.append(data[end:])  # an incomplete end is for the decoder to refuse
    return ImageFile.reduced("PNG", kept, dropped, exif, is_plain=True, intact=intact, animated=animated)


def walk_chunks(data: bytes) -> Iterator[Chunk]:
    """The complete chunks up to the end of the image."""
    start = len(SIGNATURE)
    for _ in range(MAX_PARTS):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if len(data) < start + 12 or len(data) < end:
            return
        chunk = Chunk(name=data[start + 4 : start + 8], start=start, end=end)
        yield chunk
        if chunk.name == b"IEND":
            return
        start = end
    raise BadImage(f"damaged image: the PNG has more than {MAX_PARTS:,} chunks")


def compressed_part(name: bytes, content: bytes) -> bytes | None:
    """The compressed part of a piece of metadata; None if there is none."""
    _, _, behind_keyword = content.partition(b"\0")
    if name == b"iTXt" and behind_keyword[:1] == b"\1":
        return behind_keyword[2:].partition(b"\0")[2].partition(b"\0")[2]
    return behind_keyword[1:] if name in (b"zTXt", b"iCCP") else None


def _unpacked_size(packed: bytes, budget: int) -> int | None:
    """The unpacked size, or a little more than is allowed; None if the budget is used up or the data is damaged."""
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_METADATA_BYTES + 1)) if budget > 0 else None
    except zlib.error:
        return None


def turned_png(data: bytes, orientation: int) -> bytes | None:
    """A reduced PNG with an EXIF orientation; None if it is cut off, which need not show in its pixels."""
    if not data.endswith(_END):
        return None
    if orientation == 1:
        return data
    content = write_orientation(orientation)
    chunk = len(content).to_bytes(4, "big") + b"eXIf" + content + zlib.crc32(b"eXIf" + content).to_bytes(4, "big")
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]
