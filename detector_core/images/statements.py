"""Finds the parts of a file in which it may say where it comes from: C2PA, XMP, EXIF and the texts of a PNG.

Only the places count that the format itself gives to such a part: thirteen bytes somewhere else in a file, which anyone
can append, are no statement. Nothing is parsed here; :mod:`detector_core.images.provenance` does that, in a child
process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from detector_core.errors import BadImage
from detector_core.images import formats, offsets, png, segmented
from detector_core.images.image_file import EXIF_HEADER

MAX_BYTES: Final = 2**20
"""Maximum size of one part other than C2PA; larger ones are left out."""
MAX_TEXTS: Final = 32
_XMP_HEADER: Final = b"http://ns.adobe.com/xap/1.0/\0"
_C2PA_BOX: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The UUID of the box that holds C2PA in MP4, MOV, HEIC and AVIF."""
_APP1, _APP11, _SOS = 0xE1, 0xEB, 0xDA


@dataclass
class Statements:
    """The parts of a file that may say where it comes from, as they are in it.

    Attributes:
        media_type: of the file, for C2PA; None if it has no C2PA.
        xmp, exif: empty if there is none.
        texts: the names and contents of the text chunks of a PNG.
    """

    media_type: str | None = None
    xmp: bytes = b""
    exif: bytes = b""
    texts: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.media_type or self.xmp or self.exif or self.texts)


def find(data: bytes) -> Statements:
    """The statements of an image or a clip; none of a file in a format without a walker, or one that is damaged."""
    format_ = formats.identify(data[: formats.HEAD_BYTES])
    walk = _WALKERS.get(format_ or ("MP4" if data[4:8] == b"ftyp" else ""))
    found = Statements()
    try:
        if walk:
            walk(data, found)
    except BadImage:
        return Statements()
    return found


def _walk_jpeg(data: bytes, found: Statements) -> None:
    for marker, segment in segmented.walk_segments(data):
        if marker == _SOS:
            return
        content = segment[4:]
        if marker == _APP11 and content[:2] == b"JP" and content[12:16] == b"jumb":
            found.media_type = "image/jpeg"
        elif marker == _APP1 and content.startswith(EXIF_HEADER):
            found.exif = found.exif or content
        elif marker == _APP1 and content.startswith(_XMP_HEADER):  # parts of an extended XMP are not read
            found.xmp = found.xmp or content[len(_XMP_HEADER) :]


def _walk_png(data: bytes, found: Statements) -> None:
    for chunk in png.walk_chunks(data):
        content = data[chunk.start + 8 : chunk.end - 4]
        if chunk.name == b"caBX":
            found.media_type = "image/png"
        elif len(content) > MAX_BYTES:
            continue
        elif chunk.name == b"eXIf":
            found.exif = found.exif or content
        elif chunk.name in (b"tEXt", b"zTXt", b"iTXt") and len(found.texts) < MAX_TEXTS:
            found.texts.append((chunk.name, content))


def _walk_webp(data: bytes, found: Statements) -> None:
    for name, _, content, _ in segmented.walk_webp(data):
        if name == b"C2PA":
            found.media_type = "image/webp"
        elif name == b"EXIF":
            found.exif = found.exif or data[content][:MAX_BYTES]
        elif name == b"XMP ":
            found.xmp = found.xmp or data[content][:MAX_BYTES]


def _boxes_with(media_type: str) -> Callable[[bytes, Statements], None]:
    def walk(data: bytes, found: Statements) -> None:
        meta = None
        for box in offsets.walk_boxes(data, 0, len(data)):
            if box.name == b"uuid" and data[box.content : box.content + 16] == _C2PA_BOX:
                found.media_type = media_type
            elif box.name == b"meta" and media_type != "video/mp4":
                meta = meta or box  # a file has one: each of many could list the same items
        for kind, content in offsets.metadata_items(data, meta, MAX_BYTES) if meta else ():
            if kind == b"Exif":  # begins with the offset of the TIFF header behind it
                found.exif = found.exif or content[4 + int.from_bytes(content[:4], "big") :]
            elif kind == b"mime" and not found.xmp and b"rdf:RDF" in content:
                found.xmp = content
            if found.exif and found.xmp:
                return

    return walk


_WALKERS: Final[dict[str, Callable[[bytes, Statements], None]]] = {
    "JPEG": _walk_jpeg,
    "PNG": _walk_png,
    "WEBP": _walk_webp,
    "AVIF": _boxes_with("image/avif"),
    "HEIC": _boxes_with("image/heic"),
    "MP4": _boxes_with("video/mp4"),
}
