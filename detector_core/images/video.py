"""Decodes evenly spaced frames of a short clip from memory.

Nothing is written to disk and no other file or address is opened. The first bytes determine the container, and only
that demuxer is tried: FFmpeg's own detection would also accept playlists, which name other files and addresses.
Sound is ignored, and endless streams are refused.
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
"""Maximum width times height of a frame; a decoder keeps up to seventeen of them."""
MAX_PACKETS: Final = 20_000
"""Maximum number of packets; a minute at 240 frames per second has 14,400."""
PROBE_BYTES: Final = 5_000_000
MAX_UNPACKED_RATIO, MIN_UNPACKED_BYTES = 4, 2**24
"""Limit on the bytes of all packets, which Matroska may compress with zlib: a multiple of the file's size, or the fixed
number if that is larger."""
CONTAINERS: Final = "MP4, MOV, WebM, Matroska and AVI"

if TYPE_CHECKING:
    _Packet = Packet[VideoStream]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame with the rotation applied: seconds since the beginning of the clip, and image_HWC uint8 RGB."""

    time_s: float
    image_HWC: Pixels


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An opened clip; ``frames`` decodes while it is iterated."""

    duration_s: float
    frames: Iterator[Frame]


def container_of(data: bytes) -> str | None:
    """FFmpeg's name of the container, from the first bytes; None if it is not a supported one."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return None


def sample_frames(data: bytes, count: int, *, max_s: float, deadline: float = math.inf) -> Clip:
    """Opens a clip whose ``frames`` are evenly spaced and in order.

    Args:
        data: the bytes of the clip.
        count: number of frames; a clip with fewer frames yields each of them once.
        max_s: maximum duration in seconds.
        deadline: value of ``time.monotonic()`` at which decoding gives up.

    Raises:
        BadVideo: not a clip in a known container, or no frame of it can be decoded; also while ``frames`` is iterated.
        VideoTooLarge: longer than ``max_s``, frames larger than MAX_PIXELS, too many packets, or the deadline has
            passed; also while ``frames`` is iterated.
    """
    name = container_of(data)
    if name is None:
        raise BadVideo(f"not a clip: supported containers are {CONTAINERS}")
    try:
        container = av.open(
            io.BytesIO(data),
            mode="r",
            format=name,
            options={"protocol_whitelist": "", "probesize": str(PROBE_BYTES), "max_streams": "16"},
            metadata_errors="replace",
        )
        if not container.streams.video:
            raise BadVideo("the clip has only sound, no images")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise BadVideo("the clip's codec is not supported")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise VideoTooLarge(
                f"the clip's frames are too large: {stream.codec_context.width} x {stream.codec_context.height} pixels"
            )
        packets = _packets(container.demux(stream), max_s, max(MAX_UNPACKED_RATIO * len(data), MIN_UNPACKED_BYTES))
    except (av.FFmpegError, ValueError, OSError, OverflowError) as error:
        raise BadVideo(f"the clip cannot be read: {_reason(error)}") from None
    timed = [packet for packet in packets if math.isfinite(_time(packet))]
    if not timed:
        raise BadVideo("the clip has no frames")
    first, last = min(timed, key=_time), max(timed, key=_time)
    duration_s = _time(last) - _time(first) + float((last.duration or 0) * (last.time_base or 0))
    if duration_s > max_s:
        raise VideoTooLarge(f"the clip lasts {duration_s:.0f} s: at most {max_s:g} s are allowed")
    moments = [_time(first) + duration_s * (number + 0.5) / count for number in range(count)]
    return Clip(duration_s=duration_s, frames=_decode(stream, packets, moments, _time(first), deadline))


def _packets(demuxed: Iterator["_Packet"], max_s: float, max_bytes: int) -> list["_Packet"]:
    packets, total_bytes = [], 0
    for packet in demuxed:
        total_bytes += packet.size
        if total_bytes > max_bytes:
            raise VideoTooLarge("the clip's tracks are compressed and too large when unpacked")
        if packet.size:
            packets.append(packet)
        if len(packets) > MAX_PACKETS:
            raise VideoTooLarge(f"the clip has more than {MAX_PACKETS:,} frames: at most {max_s:g} s are allowed")
    return packets


def _decode(
    stream: VideoStream, packets: list["_Packet"], moments: list[float], start: float, deadline: float
) -> Iterator[Frame]:
    """Yields the first frame at or after each moment, decoding each group of pictures only as far as necessary.

    Args:
        stream: the stream of the packets.
        packets: all packets of the clip, in decoding order.
        moments: times in seconds, ascending.
        start: time of the first frame.
        deadline: value of ``time.monotonic()`` at which decoding gives up.
    """
    codec = stream.codec_context
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    yielded = 0
    for group, end in _groups(packets):
        due = [moment for moment in moments if moment < end]
        moments = moments[len(due) :]
        if not due:
            continue
        latest: tuple[float, VideoFrame] | None = None
        latest_yielded = False
        for frame in _frames(codec, group, deadline):
            if frame.pts is None or stream.time_base is None:
                continue
            latest = float(frame.pts * stream.time_base), frame  # frame.time is 0 for the last frames of a group
            latest_yielded = latest[0] >= due[0] - 1e-6
            if latest_yielded:
                due = [moment for moment in due if moment > latest[0] + 1e-6]
                yielded += 1
                yield _upright(frame, latest[0] - start)
            if not due:
                break
        if latest is not None and not latest_yielded:  # a moment after the last frame of the group: use that frame
            yielded += 1
            yield _upright(latest[1], latest[0] - start)
        codec.flush_buffers()  # always: a codec that was sent the end of the stream accepts no more packets
    if not yielded:
        raise BadVideo("no frame of the clip can be decoded")


def _groups(packets: list["_Packet"]) -> Iterator[tuple[list["_Packet"], float]]:
    """Splits packets into groups that begin with a key frame, each with the time at which the next group begins.

    A packet without a time does not begin a group: Matroska gives a time only to the first of several frames in a
    block.
    """
    starts = [
        number
        for number, packet in enumerate(packets)
        if number == 0 or (packet.is_keyframe and math.isfinite(_time(packet)))
    ]
    for start, stop in zip(starts, [*starts[1:], len(packets)], strict=True):
        yield packets[start:stop], _time(packets[stop]) if stop < len(packets) else math.inf


def _time(packet: "_Packet") -> float:
    """Presentation time in seconds; -inf if the packet has none."""
    return -math.inf if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def _frames(codec: VideoCodecContext, group: list["_Packet"], deadline: float) -> Iterator[VideoFrame]:
    for packet in [*group, None]:
        if time.monotonic() > deadline:
            raise VideoTooLarge("the clip takes too long to decode")
        try:
            yield from codec.decode(packet)
        except (av.FFmpegError, ValueError, OSError):
            continue  # a damaged frame; the others may be intact


def _upright(frame: VideoFrame, time_s: float) -> Frame:
    try:
        image_HWC = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadVideo(f"a frame cannot be converted: {_reason(error)}") from None
    quarters = round(frame.rotation / 90) % 4
    return Frame(time_s=round(max(0.0, time_s), 3), image_HWC=np.ascontiguousarray(np.rot90(image_HWC, quarters)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
