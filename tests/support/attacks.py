"""Small files that ask a decoder for far more work than their size justifies; ``reliability.attacks`` sends them."""

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def repeated_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG, or the first image of an MPO, whose last scan is repeated."""
    with Image.open(io.BytesIO(data)) as image:
        first = image.mpinfo[0xB002][0]["Size"] if image.format == "MPO" else len(data)
    head, rest = data[:first], data[first:]
    assert head.endswith(b"\xff\xd9")
    scan = head[head.rindex(b"\xff\xda") : -2]
    return head[:-2] + scan * count + b"\xff\xd9" + rest


def flat_image(format_: str, size: tuple[int, int]) -> bytes:
    """A progressive JPEG, or a phone's MPO of two such images, of one color; size is (width, height)."""
    image, buffer = Image.new("RGB", size, (120, 130, 140)), io.BytesIO()
    more = {"save_all": True, "append_images": [image.resize((64, 64))]} if format_ == "MPO" else {}
    image.save(buffer, format_, quality=80, progressive=True, **more)
    return buffer.getvalue()


def tiff(size: tuple[int, int], *, tile: tuple[int, int] | None, shared: bool, compression: int = 8) -> bytes:
    """A gray TIFF of zeros in tiles, or in strips of one row; all parts are one stream, or each has its own.

    Args:
        size, tile: width and height.
        compression: 8 for Deflate; 1 for none, in which case the parts are empty.
    """
    width, height = tile or (size[0], 1)
    part = b"" if compression == 1 else zlib.compress(bytes(width * height), 9)
    count = -(-size[0] // width) * -(-size[1] // height)
    offsets_at = 8 + len(part) * (1 if shared else count)
    offsets_at += offsets_at % 2
    counts_at = offsets_at + 4 * count
    tags = [(256, size[0]), (257, size[1]), (258, 8), (259, compression), (262, 1), (277, 1)]
    tags += [(322, width), (323, height), (324, offsets_at), (325, counts_at)] if tile else []
    tags += [] if tile else [(273, offsets_at), (278, height), (279, counts_at)]
    data = b"II*\0" + struct.pack("<I", counts_at + 4 * count) + part * (1 if shared else count)
    data = data.ljust(offsets_at, b"\0")
    data += struct.pack(f"<{count}I", *(8 + (0 if shared else len(part) * number) for number in range(count)))
    data += struct.pack(f"<{count}I", *[len(part)] * count)
    entries = b"".join(
        struct.pack("<HHII", tag, 4, count if tag in (273, 279, 324, 325) else 1, value) for tag, value in sorted(tags)
    )
    return data + struct.pack("<H", len(tags)) + entries + bytes(4)


def avif_with_many_items(data: bytes, items: int, extents: int) -> bytes:
    """The AVIF whose list of items declares more of them, and more parts of each, than it has."""
    at = data.index(b"iloc") + 4
    assert data[at] == 0  # version: two bytes for the number of items
    changed = bytearray(data)
    changed[at + 6 : at + 8] = items.to_bytes(2, "big")
    sizes = data[at + 4] << 8 | data[at + 5]
    extents_at = at + 8 + 4 + (sizes >> 4 & 15)
    changed[extents_at : extents_at + 2] = extents.to_bytes(2, "big")
    return bytes(changed)


def box(name: bytes, content: bytes) -> bytes:
    """A box of an AVIF or a clip."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def avif_of_items(kind: bytes, extents: int, content: bytes, containers: int = 1) -> bytes:
    """An AVIF without an image, with one item all of whose parts are the same bytes of the file.

    Args:
        kind: of the item, such as ``mime``.
        extents: number of its parts.
        content: of each part; if it is empty, the list of parts takes no bytes.
        containers: number of ``mdat`` boxes; each has the content, and the parts are those of the first.
    """
    head = box(b"ftyp", b"avif\0\0\0\0avif")
    entry = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + kind + b"\0")
    information = box(b"iinf", struct.pack(">IH", 0, 1) + entry)
    parts = struct.pack(">II", len(head) + 8, len(content)) * extents if content else b""
    field_bytes = 0x4400 if content else 0
    locations = box(b"iloc", struct.pack(">IHHHHH", 0, field_bytes, 1, 1, 0, extents) + parts)
    return head + box(b"mdat", content) * containers + box(b"meta", bytes(4) + information + locations)


class CountingBytes(bytes):
    """Bytes that count what is read of them: each slice costs its length, and one more."""

    read = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.read += 1 + (len(part) if isinstance(part, bytes) else 1)
        return part


def heavy_clip(frames: int, size: tuple[int, int] = (4096, 2304)) -> bytes:
    """A clip of the largest frames in one group, which all must be decoded; each but the first has a few bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=240)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size, stream.max_b_frames = "yuv420p", 600, 0
        stripes = np.zeros((size[1], size[0], 3), np.uint8)
        stripes[::2] = 90
        packets = []
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(stripes, format="rgb24")
            frame.pts = number
            packets += [bytes(packet) for packet in stream.encode(frame)]
        packets += [bytes(packet) for packet in stream.encode()]
        for number in range(frames):
            packet = av.Packet(packets[min(number, 1)])
            packet.pts = packet.dts = number
            packet.stream, packet.duration, packet.time_base = stream, 1, Fraction(1, 240)
            packet.is_keyframe = number == 0
            output.mux(packet)
    return buffer.getvalue()
