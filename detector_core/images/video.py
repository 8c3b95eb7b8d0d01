"""Evenly spaced frames of a short clip, from memory: nothing is written to disk and nothing else is opened.

The container is told apart by its first bytes and opened as that one: FFmpeg's own guess would also take playlists,
which name other files and addresses. Left out: sound, and streams that never end.
"""

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images.decode import Pixels

MAX_PIXELS: Final = 4096 * 2304
"""Of one frame; a decoder keeps up to seventeen."""
MAX_PACKETS: Final = 20_000
"""A minute at 240 frames a second has 14,400."""
PROBE_BYTES: Final = 5_000_000
KNOWN: Final = "MP4, MOV, WebM, Matroska and AVI"

if TYPE_CHECKING:
    _Packet = Packet[VideoStream]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One upright frame: ``time_s`` from the beginning of the clip, image_HWC uint8 RGB."""

    time_s: float
    image_HWC: Pixels


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An opened clip; ``frames`` decodes while it is iterated."""

    duration_s: float
    frames: Iterator[Frame]


def container_of(data: bytes) -> str | None:
    """FFmpeg's name of the container that the first bytes show; None if it is none that is read."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return None


UNPACKED, LEAST_UNPACKED = 4, 2**24
"""Bytes of packets that are held: so many times the file, or as many. Matroska may compress its tracks with zlib."""


def sample_frames(data: bytes, count: int, *, max_s: float, deadline: float = math.inf) -> Clip:
    """``count`` evenly spaced frames of a clip (fewer where it has fewer), in order.

    Args:
        max_s: longest clip that is taken.
        deadline: moment of ``time.monotonic`` at which decoding gives up.

    Raises:
        BadVideo: not a clip of a known container, or nothing in it can be decoded; also while iterated.
        VideoTooLarge: longer than ``max_s``, or of larger frames than MAX_PIXELS.
    """
    name = container_of(data)
    if name is None:
        raise BadVideo(f"not a clip: {KNOWN} are read")
    try:
        container = av.open(
            io.BytesIO(data),
            mode="r",
            format=name,
            options={"protocol_whitelist": "", "probesize": str(PROBE_BYTES), "max_streams": "16"},
            metadata_errors="replace",
        )
        if not container.streams.video:
            raise BadVideo("the clip has no image, only sound")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise BadVideo("the clip's codec is not known")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise VideoTooLarge(f"frames of {stream.codec_context.width} x {stream.codec_context.height} are too large")
        packets = _packets(container.demux(stream), max_s, max(UNPACKED * len(data), LEAST_UNPACKED))
    except (av.FFmpegError, ValueError, OSError, OverflowError) as error:
        raise BadVideo(f"the clip cannot be read: {_reason(error)}") from None
    shown = [packet for packet in packets if math.isfinite(_time(packet))]
    if not shown:
        raise BadVideo("the clip has no frame")
    first, last = min(shown, key=_time), max(shown, key=_time)
    duration_s = _time(last) - _time(first) + float((last.duration or 0) * (last.time_base or 0))
    if duration_s > max_s:
        raise VideoTooLarge(f"the clip lasts {duration_s:.0f} s: at most {max_s:g} s are taken")
    wanted = [_time(first) + duration_s * (place + 0.5) / count for place in range(count)]
    return Clip(duration_s=duration_s, frames=_decoded(stream, packets, wanted, _time(first), deadline))


def _packets(demuxed: Iterator["_Packet"], max_s: float, max_bytes: int) -> list["_Packet"]:
    found, held = [], 0
    for packet in demuxed:
        held += packet.size
        if held > max_bytes:
            raise VideoTooLarge("the clip's tracks are compressed and unpack to too much")
        if packet.size:
            found.append(packet)
        if len(found) > MAX_PACKETS:
            raise VideoTooLarge(f"the clip has more than {MAX_PACKETS:,} frames: at most {max_s:g} s are taken")
    return found


def _decoded(
    stream: VideoStream, packets: list["_Packet"], wanted: list[float], first: float, deadline: float
) -> Iterator[Frame]:
    """Of each group of images only as much is decoded as is wanted of it."""
    codec = stream.codec_context
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    yielded = 0
    for group, end in _groups(packets):
        inside = [moment for moment in wanted if moment < end]
        wanted = wanted[len(inside) :]
        if not inside:
            continue
        latest: tuple[float, VideoFrame] | None = None
        shown = False
        for frame in _frames(codec, group, deadline):
            if frame.pts is None or stream.time_base is None:
                continue
            latest = float(frame.pts * stream.time_base), frame  # frame.time is 0 for the last ones of a group
            shown = latest[0] >= inside[0] - 1e-6
            if shown:
                inside = [moment for moment in inside if moment > latest[0] + 1e-6]
                yielded += 1
                yield _upright(frame, latest[0] - first)
            if not inside:
                break
        if latest is not None and not shown:  # what is wanted lies after the last frame of the group
            yielded += 1
            yield _upright(latest[1], latest[0] - first)
        codec.flush_buffers()  # also where nothing was decoded: a codec that was told the end takes no more
    if not yielded:
        raise BadVideo("no frame of the clip can be decoded")


def _groups(packets: list["_Packet"]) -> Iterator[tuple[list["_Packet"], float]]:
    """Runs of packets that begin with a key frame, each with the time at which the next one begins.

    A packet without a time begins none: Matroska may say that of the first of several in one block alone.
    """
    starts = [
        place
        for place, packet in enumerate(packets)
        if place == 0 or (packet.is_keyframe and math.isfinite(_time(packet)))
    ]
    for start, stop in zip(starts, [*starts[1:], len(packets)], strict=True):
        yield packets[start:stop], _time(packets[stop]) if stop < len(packets) else math.inf


def _time(packet: "_Packet") -> float:
    return -math.inf if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def _frames(codec: VideoCodecContext, group: list["_Packet"], deadline: float) -> Iterator[VideoFrame]:
    for packet in [*group, None]:
        if time.monotonic() > deadline:
            raise VideoTooLarge("the clip takes too long to decode")
        try:
            yield from codec.decode(packet)
        except (av.FFmpegError, ValueError, OSError):
            continue  # a damaged frame; the others may do


def _upright(frame: VideoFrame, time_s: float) -> Frame:
    try:
        image_HWC = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadVideo(f"a frame cannot be converted: {_reason(error)}") from None
    quarters = round(frame.rotation / 90) % 4
    return Frame(time_s=round(max(0.0, time_s), 3), image_HWC=np.ascontiguousarray(np.rot90(image_HWC, quarters)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
