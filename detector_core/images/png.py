"""The chunks of a PNG file, and the file without those that do not make up its pixels.

Pillow refuses a whole image for an error in a text chunk, or for a text that is large when unpacked; images by
generators carry such texts. Only EXIF, which may say how to turn the image, is handed to the decoder here.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 50_000
"""Maximum number of chunks; a file of 20 MiB that was written in pieces of 1 KiB has 20,000."""
MAX_METADATA_BYTES: Final = 2**20
"""Maximum size of one piece of metadata, unpacked."""
FRAMES: Final = (b"acTL", b"fcTL", b"fdAT")
"""Chunks of an animation: how many frames it has, and those after the first."""
MAX_UNPACKED_BYTES: Final = 4 * MAX_METADATA_BYTES
"""How many bytes of all metadata are unpacked, to learn their size."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A chunk of a file, at ``data[start:end]``."""

    name: bytes
    start: int
    end: int

    @property
    def makes_pixels(self) -> bool:
        """Whether the pixels of the first frame depend on the chunk: critical chunks, and the transparent colors."""
        return not self.name[0] & 0x20 or self.name == b"tRNS"

    def content(self, data: bytes) -> bytes:
        """The bytes between name and checksum."""
        return data[self.start + 8 : self.end - 4]

    def is_intact(self, data: bytes) -> bool:
        """Whether the checksum is right."""
        checksum = int.from_bytes(data[self.end - 4 : self.end], "big")
        return zlib.crc32(data[self.start + 4 : self.end - 4]) == checksum


@dataclass(frozen=True, kw_only=True)
class PixelFile:
    """A PNG file reduced to its pixels and EXIF.

    Attributes:
        data: the bytes of the file.
        metadata_intact: whether no piece of metadata was damaged or larger than MAX_METADATA_BYTES.
        animated: whether the original has several frames; ``data`` has the first.
    """

    data: bytes
    metadata_intact: bool
    animated: bool


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yields the complete chunks up to the end of the image. Raises ValueError if there are too many."""
    start = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if len(data) < start + 12 or len(data) < end:
            return
        chunk = Chunk(name=data[start + 4 : start + 8], start=start, end=end)
        yield chunk
        if chunk.name == b"IEND":
            return
        start = end
    raise ValueError(f"the PNG has more than {MAX_CHUNKS:,} chunks")


def reduce_to_pixels(data: bytes) -> PixelFile:
    """Drops all metadata but EXIF, and all frames but the first. Raises ValueError if there are too many chunks."""
    kept, end = [data[: len(SIGNATURE)]], len(SIGNATURE)
    intact, animated, budget = True, False, MAX_UNPACKED_BYTES
    for chunk in chunks(data):
        end = chunk.end
        if chunk.makes_pixels:
            kept.append(data[chunk.start : end])
        elif chunk.name in FRAMES:
            animated |= chunk.name == b"acTL" and int.from_bytes(chunk.content(data)[:4], "big") > 1
        else:
            content = chunk.content(data) if chunk.is_intact(data) else None
            packed = _packed(chunk.name, content) if content else None
            size = len(content) if content is not None else None
            if packed is not None:
                size = _unpacked_size(packed, budget)
                budget -= size or 0
            usable = size is not None and size <= MAX_METADATA_BYTES
            intact &= usable
            if chunk.name == b"eXIf" and usable:
                kept.append(data[chunk.start : end])
    if kept[-1][4:8] != b"IEND":
        kept.append(data[end:])  # an incomplete end is for the decoder to refuse
    return PixelFile(data=b"".join(kept), metadata_intact=intact, animated=animated)


def _packed(name: bytes, content: bytes) -> bytes | None:
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
