"""What is known of an image file before it is decoded, and the one piece of metadata that affects pixels: orientation.

Not in this module: how each format is read (:mod:`detector_core.images.structure`).
"""

from dataclasses import dataclass
from typing import Final, Literal

MAX_PARTS: Final = 100_000
"""Maximum number of segments, chunks, blocks, tiles or boxes. A photo has tens; a PNG of a gigabyte in chunks of 8 KiB
has this many. A decoder spends some microseconds on each, however short it is."""
ORIENTATION: Final = 0x0112
EXIF_HEADER: Final = b"Exif\0\0"
BYTE_ORDERS: Final[dict[bytes, Literal["little", "big"]]] = {b"II*\0": "little", b"MM\0*": "big"}
"""The first bytes of a TIFF structure, which EXIF data is too."""


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image file reduced to the parts that its pixels depend on.

    Attributes:
        format: one of :data:`detector_core.images.formats.READABLE`.
        data: the reduced file.
        is_plain: whether it is of an ordinary kind, whose decoder does no more work and takes no more memory than its
            pixels and bytes justify: a baseline JPEG, a PNG, or a lossy WebP without transparency.
        orientation: EXIF orientation, 1 to 8, for formats whose decoder does not report it; else 1.
        buffer_pixels: pixels of all buffers that decoding fills, if they may exceed width times height; else 0.
        metadata_bytes: bytes of metadata that were dropped.
        metadata_intact: False if some of it was damaged or too large, and therefore ignored; if it said how to turn the
            image, the image is not turned.
        animated: whether the original has more images than the first, as far as it is known before decoding.
    """

    format: str
    data: bytes
    is_plain: bool = False
    orientation: int = 1
    buffer_pixels: int = 0
    metadata_bytes: int = 0
    metadata_intact: bool = True
    animated: bool = False

    @classmethod
    def reduced(
        cls,
        format_: str,
        parts: list[bytes],
        dropped: int,
        exif: bytes,
        *,
        is_plain: bool = False,
        intact: bool = True,
        animated: bool = False,
    ) -> "ImageFile":
        """A file of the parts that are kept.

        Args:
            dropped: bytes of metadata.
            exif: EXIF data of the original file; empty if it has none.
            is_plain: see :class:`ImageFile`.
            intact: whether metadata other than ``exif`` was intact.
            animated: whether more images follow.
        """
        turned = read_orientation(exif) if exif else 1
        return cls(
            format=format_,
            data=b"".join(parts),
            is_plain=is_plain,
            orientation=turned or 1,
            metadata_bytes=dropped,
            metadata_intact=intact and turned is not None,
            animated=animated,
        )


def read_orientation(exif: bytes) -> int | None:
    """The orientation in EXIF data, 1 to 8; 1 if it has none, None if the data is damaged.

    Only the first directory is read: EXIF data can refer to the same bytes thousands of times.
    """
    exif = exif.removeprefix(EXIF_HEADER)
    order = BYTE_ORDERS.get(exif[:4])
    if order is None:
        return None
    at = int.from_bytes(exif[4:8], order)
    if len(exif) < at + 2:
        return None
    for number in range(int.from_bytes(exif[at : at + 2], order)):
        entry = exif[at + 2 + 12 * number : at + 14 + 12 * number]
        if len(entry) < 12:
            return None
        if int.from_bytes(entry[:2], order) == ORIENTATION:
            size = {1: 1, 3: 2, 4: 4}.get(int.from_bytes(entry[2:4], order), 0)
            value = int.from_bytes(entry[8 : 8 + size], order)
            return value if 1 <= value <= 8 else 1
    return 1


def write_orientation(orientation: int) -> bytes:
    """EXIF data with the orientation alone, without EXIF_HEADER."""
    entry = ORIENTATION.to_bytes(2, "big") + b"\0\3\0\0\0\1" + orientation.to_bytes(2, "big") + b"\0\0"
    return b"MM\0*\0\0\0\x08\0\1" + entry + b"\0\0\0\0"
