"""Walks image files whose parts are found by offsets: AVIF, HEIC and TIFF.

Metadata is overwritten in place, so that every offset stays valid.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from detector_core.errors import BadImage, UnsupportedFormat
from detector_core.images.image_file import BYTE_ORDERS, MAX_PARTS, ImageFile

_AVIF_KEPT: Final = {b"ftyp", b"meta", b"mdat", b"moov"}
_META_KEPT: Final = {b"hdlr", b"pitm", b"iinf", b"iref", b"iprp", b"iloc", b"idat", b"grpl", b"dinf"}
_METADATA_ITEMS: Final = {b"Exif", b"mime", b"uri "}

_WIDTH, _HEIGHT, _COMPRESSION, _STRIP_COUNTS, _SAMPLES, _ROWS, _PLANAR = 256, 257, 259, 279, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_COUNTS = 322, 323, 325
_TIFF_LAYOUT: Final = {_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _ROWS, _STRIP_COUNTS, _PLANAR} | {
    *(_TILE_WIDTH, _TILE_HEIGHT, _TILE_COUNTS)
}
_TIFF_KEPT: Final = (
    _TIFF_LAYOUT | {254, 255, 258, 262, 266, 273, 274, 292, 293, 317, 320, 324, 332, 338, 339} | {*range(529, 533)}
)
"""Tags that say how much work the pixels take, and all tags that pixels depend on."""
_PRIVATE_TAG: Final = 65_000
_COMPRESSIONS: Final = {
    **{1: "none", 2: "CCITT", 3: "Group 3", 4: "Group 4", 5: "LZW"},
    **{8: "Deflate", 32946: "Deflate", 32773: "PackBits"},
}
_TYPE_BYTES: Final = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)


class Box(NamedTuple):
    """A box of a file: from ``start`` to ``end``, with its content from ``content`` on."""

    name: bytes
    start: int
    content: int
    end: int


def has_avif_brand(data: bytes) -> bool:
    """Whether an image that names another format of its family first is an AVIF too."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    return any(data[at : at + 4] in (b"avif", b"avis") for at in range(16, end, 4))


def reduce_heic(data: bytes) -> ImageFile:
    """:func:`reduce_avif` for the format of iPhones, which differs in the codec of its items. Raises BadImage."""
    return dataclasses.replace(reduce_avif(data), format="HEIC")


def reduce_avif(data: bytes) -> ImageFile:
    """With EXIF, XMP, color profiles, names and unused bytes overwritten; the orientation is a property that stays.

    Of an image sequence, whose frames are listed elsewhere, unused bytes stay too. Raises BadImage.
    """
    changed, end, dropped, names = bytearray(data), 0, 0, set()
    kept: list[tuple[int, int]] = []
    boxes = list(walk_boxes(data, 0, len(data)))
    for box in boxes:
        end = box.end
        if box.name == b"meta" and b"meta" in names:
            raise BadImage("damaged image: it has two lists of items, where a file has one")
        names.add(box.name)
        if box.name == b"meta":
            dropped += _blank_metadata(data, box, changed, kept)
        elif box.name not in _AVIF_KEPT:
            dropped += _blank_box(changed, box)
    if sum(stop - start for start, stop in kept) > len(data):
        raise BadImage("damaged image: the items of the image are larger together than the file")
    if b"moov" not in names:
        _blank_unused([(box.content, box.end) for box in boxes if box.name == b"mdat"], data, changed, kept)
    return ImageFile(format="AVIF", data=bytes(changed[:end]), metadata_bytes=dropped)


def _blank_unused(
    containers: list[tuple[int, int]], data: bytes, changed: bytearray, kept: list[tuple[int, int]]
) -> None:
    """Overwrites what ``containers``, which follow one another, have besides the parts in ``kept``."""
    for start, end in containers:
        _blank(changed, start, end)
    starts, ends = [start for start, _ in containers], [end for _, end in containers]
    for start, stop in kept:  # both may be many: only the containers that a part lies in are visited
        for container_start, container_end in containers[bisect_right(ends, start) : bisect_left(starts, stop)]:
            part = slice(max(start, container_start), min(stop, container_end))
            changed[part] = data[part]


def _blank_metadata(data: bytes, meta: Box, changed: bytearray, kept: list[tuple[int, int]]) -> int:
    """Overwrites the metadata of ``meta`` and returns its size; appends to ``kept`` where the other items lie."""
    dropped, inner = 0, {box.name: box for box in walk_boxes(data, meta.content + 4, meta.end)}
    for name, box in inner.items():
        if name not in _META_KEPT:
            dropped += _blank_box(changed, box)
    if handler := inner.get(b"hdlr"):
        _blank(changed, handler.content + 24, handler.end)
    for properties in _boxes_in(data, inner.get(b"iprp")):
        for box in _boxes_in(data, properties if properties.name == b"ipco" else None):
            if box.name == b"colr" and data[box.content : box.content + 4] != b"nclx":
                dropped += _blank_box(changed, box)
    metadata = _blank_names(data, inner[b"iinf"], changed) if b"iinf" in inner else set()
    own_data = inner[b"idat"].content if b"idat" in inner else len(data)
    for item, start, end in walk_extents(data, inner[b"iloc"], own_data) if b"iloc" in inner else ():
        if item not in metadata:
            kept.append((start, end))
        elif dropped <= len(data):
            dropped += _blank(changed, start, end)
    return dropped


def _boxes_in(data: bytes, box: Box | None) -> Iterator[Box]:
    return walk_boxes(data, box.content, box.end) if box else iter(())


def walk_boxes(data: bytes, at: int, stop: int) -> Iterator[Box]:
    """The boxes of a part of a file. Raises BadImage for too many."""
    for _ in range(MAX_PARTS):
        if at + 8 > stop:
            return
        size, content = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, content = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = min(stop, at + size) if size else stop
        if end < content:
            return  # damaged: the decoder finds out
        yield Box(data[at + 4 : at + 8], at, content, end)
        at = end
    raise BadImage(f"damaged image: it has more than {MAX_PARTS:,} boxes")


def _blank_names(data: bytes, info: Box, changed: bytearray) -> set[int]:
    """Overwrites the names of all items, and the types of those that are metadata, whose ids it returns."""
    ids = set()
    for item, kind, end in _items(data, info):
        if data[kind : kind + 4] in _METADATA_ITEMS:
            ids.add(item)
            changed[kind : kind + 4] = b"free"
        _blank(changed, kind + 4, end)
    return ids


def _items(data: bytes, info: Box) -> Iterator[tuple[int, int, int]]:
    """The id of each item, where its type is, and where its entry ends."""
    version = data[info.content : info.content + 1]
    for entry in walk_boxes(data, info.content + (6 if version == b"\0" else 8), info.end):
        id_bytes = 4 if data[entry.content : entry.content + 1] == b"\3" else 2
        item = int.from_bytes(data[entry.content + 4 : entry.content + 4 + id_bytes], "big")
        yield item, entry.content + 4 + id_bytes + 2, entry.end


def metadata_items(data: bytes, meta: Box, max_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """The type and the content of the items of a ``meta`` box that are EXIF or XMP. Raises BadImage.

    Together they are no larger than the file: parts that share their bytes could make a small file cost much work.

    Args:
        max_bytes: larger parts of items are left out.
    """
    inner = {box.name: box for box in walk_boxes(data, meta.content + 4, meta.end)}
    if not {b"iinf", b"iloc"} <= inner.keys():
        return
    kinds = {item: data[kind : kind + 4] for item, kind, _ in _items(data, inner[b"iinf"])}
    own_data = inner[b"idat"].content if b"idat" in inner else len(data)
    left = len(data)
    for item, start, end in walk_extents(data, inner[b"iloc"], own_data):
        if kinds.get(item) in _METADATA_ITEMS and end - start <= max_bytes:
            left -= end - start
            if left < 0:
                return
            yield kinds[item], data[start:end]


def walk_extents(data: bytes, location: Box, in_data: int) -> Iterator[tuple[int, int, int]]:
    """Item id, start and end of each extent; ``in_data`` is where the meta box's own data begins."""
    at = location.content

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    version = number(4) >> 24
    sizes = number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    parts = 0
    for _ in range(number(4 if version == 2 else 2)):
        if at > location.end:
            raise BadImage("damaged image: it lists more items than it has")
        item, method = number(4 if version == 2 else 2), number(2) & 15 if version else 0
        number(2)  # the file that holds the data: this one
        base = number(base_size) + (in_data if method == 1 else 0)
        for _ in range(number(2)):
            number(index_size)
            start = base + number(offset_size)
            yield item, start, start + number(length_size)
            parts += 1
            if parts > MAX_PARTS or at > location.end:
                raise BadImage("damaged image: it lists more parts of items than it has")


def _blank_box(changed: bytearray, box: Box) -> int:
    changed[box.start + 4 : box.start + 8] = b"free"
    return _blank(changed, box.content, box.end)


def _blank(changed: bytearray, start: int, end: int) -> int:
    """Overwrites a part with zeros; returns its size."""
    end = min(end, len(changed))
    size = max(0, end - start)
    changed[start : start + size] = bytes(size)
    return size


def reduce_tiff(data: bytes) -> ImageFile:
    """Of the first directory, the tags that pixels depend on.

    Raises:
        BadImage: its strips or tiles are too many, or share bytes of the file, so that few bytes cost much work.
        UnsupportedFormat: BigTIFF, or a compression whose cost is not bounded by the size of the image.
    """
    order = BYTE_ORDERS.get(data[:4])
    if order is None:
        raise UnsupportedFormat("BigTIFF images cannot be read: save the image as PNG")
    changed, values, read, dropped = bytearray(data), dict[int, list[int]](), 0, 0
    first = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[first : first + 2], order)
    if first + 2 + 12 * entries > len(data):
        raise BadImage("damaged image: the directory of the TIFF is cut off")
    for number in range(entries):
        at = first + 2 + 12 * number
        tag, kind, count = (int.from_bytes(data[at + a : at + b], order) for a, b in ((0, 2), (2, 4), (4, 8)))
        width = _TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0
        size = width * count
        if tag not in _TIFF_KEPT:
            changed[at : at + 8] = b"".join(part.to_bytes(n, order) for part, n in ((_PRIVATE_TAG, 2), (1, 2), (1, 4)))
            dropped += size
            continue
        read += size
        if read > len(data) or (tag in _TIFF_LAYOUT and count > MAX_PARTS):
            raise BadImage("damaged image: the directory of the TIFF has more values than it may")
        start = at + 8 if size <= 4 else int.from_bytes(data[at + 8 : at + 12], order)
        if tag in _TIFF_LAYOUT:
            values[tag] = [int.from_bytes(data[i : i + width], order) for i in range(start, start + size, width or 1)]
    return ImageFile(
        format="TIFF",
        data=bytes(changed),
        buffer_pixels=_check_tiff({tag: value for tag, value in values.items() if value}, len(data)),
        metadata_bytes=min(dropped, len(data)),
    )


def _check_tiff(values: dict[int, list[int]], length: int) -> int:
    """Pixels of all strips or tiles together. Raises BadImage, UnsupportedFormat."""

    def value(tag: int, default: int = 1) -> int:
        return max(1, values.get(tag, [default])[0])

    if value(_COMPRESSION) not in _COMPRESSIONS:
        names = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise UnsupportedFormat(
            f"TIFF images with compression {value(_COMPRESSION)} cannot be read, only {names}: save the image as PNG"
        )
    width, height = value(_WIDTH), value(_HEIGHT)
    across, down, part = 1, -(-height // value(_ROWS, height)), width * min(height, value(_ROWS, height))
    if _TILE_WIDTH in values or _TILE_HEIGHT in values:
        tile = value(_TILE_WIDTH, width), value(_TILE_HEIGHT, height)
        across, down, part = -(-width // tile[0]), -(-height // tile[1]), tile[0] * tile[1]
    planes = value(_SAMPLES) if value(_PLANAR) == 2 else 1
    if across * down * planes > MAX_PARTS:
        raise BadImage(f"damaged image: the TIFF has more than {MAX_PARTS:,} tiles or strips")
    counts = values.get(_TILE_COUNTS, values.get(_STRIP_COUNTS, []))
    if value(_COMPRESSION) != 1 and (not counts or sum(counts) > length):
        raise BadImage("damaged image: the tiles or strips of the TIFF are larger together than the file")
    return across * down * planes * part
