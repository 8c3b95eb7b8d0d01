"""Clips made in memory, in which the mean gray level of a frame tells its number."""

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

STEP = 5
"""Gray levels between two frames."""
CONTRAST = 6
"""How much lighter and darker than its mean the halves of a frame are: a frame of one gray level shows nothing."""


def make_clip(
    frames: int = 25,
    *,
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    codec: str = "libx264",
    container: str = "mp4",
    gop: int = 6,
    **options: Any,
) -> bytes:
    """A clip of frames whose right half is a little darker, each STEP brighter than the previous one.

    Args:
        size: width and height in pixels.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options={name: str(value) for name, value in options.items()})
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        for number in range(frames):
            halves = np.repeat([CONTRAST, -CONTRAST], size[0] // 2) + number * STEP % 256
            pixels = np.tile(halves.clip(0, 255).astype(np.uint8)[None, :, None], (size[1], 1, 3))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


def held_frames(
    frames: list[tuple[int, np.ndarray]], end_ms: int, *, container: str = "mp4", **stream_options: Any
) -> bytes:
    """A clip of variable frame rate, as recorders of screens write it: each frame stays until the next one.

    Args:
        frames: when each frame appears, in ms, and its pixels (height, width, 3), uint8.
        end_ms: when the last one disappears.
        stream_options: attributes of the codec, such as its color range.
    """
    buffer, clock = io.BytesIO(), Fraction(1, 1000)
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=50, options={"tune": "zerolatency", "qp": "8"})
        stream.height, stream.width = frames[0][1].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", clock
        for name, value in stream_options.items():
            setattr(stream.codec_context, name, value)
        packets = []
        for time_ms, pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, clock
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet, end in zip(packets, [*(time_ms for time_ms, _ in frames[1:]), end_ms], strict=True):
            packet.duration = end - packet.pts
            output.mux(packet)
    return buffer.getvalue()


def gray(level: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame of one gray level; size is (width, height)."""
    return np.full((size[1], size[0], 3), level, np.uint8)


def quadrants(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame whose quarters are black, dark, light and white, from left to right and from top to bottom."""
    levels = np.array([[0, 85], [170, 255]], np.uint8)
    return np.repeat(levels.repeat(size[1] // 2, 0).repeat(size[0] // 2, 1)[..., None], 3, 2)


def with_display_matrix(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """The MP4 with a transformation of its picture: (x, y) is shown at (a x + c y, b x + d y)."""
    changed = bytearray(data)
    identity = bytes.fromhex("00010000" + "0" * 24 + "00010000")
    start = data.index(identity, data.index(b"tkhd"))
    for number, value in enumerate((a, b, 0, c, d)):
        changed[start + 4 * number : start + 4 * number + 4] = (round(value * 2**16) % 2**32).to_bytes(4, "big")
    return bytes(changed)


def with_clean_aperture(data: bytes, width: int, height: int) -> bytes:
    """The MP4 of H.264, which says that only its middle is shown."""
    changed, box = bytearray(data), struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    starts = [0]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):  # each within the one before
        starts.append(changed.index(name, starts[-1] + 8) - 4)
    end = starts[-1] + int.from_bytes(changed[starts[-1] : starts[-1] + 4], "big")
    for start in starts[1:]:
        size = int.from_bytes(changed[start : start + 4], "big") + len(box)
        changed[start : start + 4] = size.to_bytes(4, "big")
    return bytes(changed[:end]) + box + bytes(changed[end:])


def sound_only() -> bytes:
    """A clip without images."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


def declare_samples(data: bytes, count: int) -> bytes:
    """The MP4 with an index that declares ``count`` samples of eight bytes in its first chunk."""
    changed = bytearray(data)
    sizes, chunks = changed.index(b"stsz") + 8, changed.index(b"stsc") + 8
    changed[sizes : sizes + 8] = (8).to_bytes(4, "big") + count.to_bytes(4, "big")
    changed[chunks : chunks + 4] = (1).to_bytes(4, "big")
    changed[chunks + 8 : chunks + 12] = count.to_bytes(4, "big")
    return bytes(changed)


def compressed_matroska(blocks: int, size: int) -> bytes:
    """A Matroska clip whose blocks are ``size`` zeros each, compressed with zlib."""
    coding = _element("6d80", _element("6240", _element("5034", _element("4254", b"\0"))))
    compressed = zlib.compress(bytes(size))
    return _matroska(b"V_VP8", [(number, b"\x80" + compressed) for number in range(blocks)], coding)


def laced_matroska(levels: list[int]) -> bytes:
    """A Matroska clip with one block per second, each with two JPEGs: one of a gray level, and a white one without a
    time."""
    blocks = []
    for number, level in enumerate(levels):
        first, second = (_still(value) for value in (level, 255))
        length = b"\xff" * (len(first) // 255) + bytes([len(first) % 255])  # as in Xiph lacing
        blocks.append((1000 * number, b"\x82\x01" + length + first + second))
    return _matroska(b"V_MJPEG", blocks)


def _still(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), level).save(buffer, "JPEG")
    return buffer.getvalue()


def _matroska(codec: bytes, blocks: list[tuple[int, bytes]], coding: bytes = b"") -> bytes:
    """A track of 64 x 64 pixels; each block is its time in ms and the bytes after it."""
    shape = _element("e0", _element("b0", b"\x40"), _element("ba", b"\x40"))
    numbers = (_element(name, b"\1") for name in ("d7", "73c5", "83"))
    track = _element("ae", *numbers, _element("86", codec), shape, coding)
    block = (_element("a3", b"\x81" + time_ms.to_bytes(2, "big") + content) for time_ms, content in blocks)
    info = _element("1549a966", _element("2ad7b1", (10**6).to_bytes(4, "big")))
    cluster = _element("1f43b675", _element("e7", b"\0"), *block)
    head = _element("1a45dfa3", _element("4282", b"matroska"))
    return head + _element("18538067", info, _element("1654ae6b", track), cluster)


def _element(name: str, *parts: bytes) -> bytes:
    """An EBML element: its id in hexadecimal, the length in eight bytes, the content."""
    content = b"".join(parts)
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content
