"""Samples moments of a short clip in memory, and decodes the frame that a player shows at each.

Moments are sampled, not frames, because some frames last longer than others: in a recording of a screen, a still image
is one frame that may stay for most of the clip. Nothing is written to disk and no other file or address is opened. The
first bytes determine the container, and only that demuxer is tried: FFmpeg's own detection would also accept playlists,
which name other files and addresses. Sound is ignored, and endless streams are refused.
"""

import bisect
import io
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import av
from av.container.input import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import video_decoder
from detector_core.images.video_decoder import Decoder, Frame, reason, time_of

MAX_PACKETS: Final = 20_000
"""Maximum number of packets; a minute at 240 frames per second has 14,400."""
PROBE_BYTES: Final = 5_000_000
MAX_UNPACKED_RATIO, MIN_UNPACKED_BYTES = 4, 2**24
"""Limit on the bytes of all packets, which Matroska may compress with zlib: a multiple of the file's size, or the fixed
number if that is larger."""
_CLEAN_APERTURE: Final = b"\0\0\0\x28clap"
"""The beginning of a box that has always 40 bytes, and that chance does not write."""
_CLUSTER: Final = b"\x1f\x43\xb6\x75"
"""Where the frames of a Matroska file begin; what describes the tracks comes before."""
_PIXEL_CROP: Final = re.compile(rb"\x54[\xaa\xbb\xcc\xdd](?:\x81[^\0]|\x82(?!\0\0)..)", re.DOTALL)
"""Matroska's PixelCropBottom, -Top, -Left or -Right of one or two bytes, if it is not zero."""
CONTAINERS: Final = "MP4, MOV, WebM, Matroska and AVI"

if TYPE_CHECKING:
    from detector_core.images.video_decoder import VideoPacket


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An opened clip; ``frames`` decodes while it is iterated. ``duration_s`` lasts until the last frame disappears."""

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
    """Opens a clip whose ``frames`` are those that a player shows at evenly spaced moments, in order.

    Args:
        data: the bytes of the clip.
        count: number of moments; a frame that is shown at several of them is yielded once.
        max_s: maximum duration in seconds.
        deadline: value of ``time.monotonic()`` at which decoding gives up.

    Raises:
        BadVideo: not a clip in a known container, or no frame of it can be decoded; also while ``frames`` is iterated.
        VideoTooLarge: longer than ``max_s``, frames larger than MAX_PIXELS, too many packets, too many frames to
            decode, or the deadline has passed; also while ``frames`` is iterated.
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
        stream = _shown_stream(container)
        packets = _packets(container.demux(stream), max_s, max(MAX_UNPACKED_RATIO * len(data), MIN_UNPACKED_BYTES))
    except (av.FFmpegError, ValueError, OSError, OverflowError) as error:
        raise BadVideo(f"the clip cannot be read: {reason(error)}") from None
    kept = [packet for packet in packets if math.isfinite(time_of(packet)) and not packet.is_discard]
    if not kept:
        raise BadVideo("the clip has no frames")
    timed = sorted({time_of(packet) for packet in kept})
    duration_s = max(_end(kept), _declared_end(container)) - timed[0]
    if duration_s > max_s:
        raise VideoTooLarge(f"the clip lasts {duration_s:.0f} s: at most {max_s:g} s are allowed")
    moments = [timed[0] + duration_s * (number + 0.5) / count for number in range(count)]
    shown: dict[float, list[float]] = {}
    for moment in moments:
        shown.setdefault(timed[bisect.bisect_right(timed, moment) - 1], []).append(moment)
    others = [other for other in container.streams.video if other is not stream and not _is_cover(other)]
    cropped = _is_cropped(name, data, stream.codec_context.width, stream.codec_context.height)
    applied = not (others or cropped) and ("alpha_mode", "1") not in (
        (key.lower(), value) for key, value in stream.metadata.items()
    )
    decoder = Decoder(stream, packets, deadline, start=timed[0], applied=applied)
    return Clip(duration_s=duration_s, frames=decoder.frames(shown))


def _shown_stream(container: InputContainer) -> VideoStream:
    """The stream that a player shows; raises BadVideo if there is none, VideoTooLarge for large frames."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or _is_cover(stream):
        raise BadVideo("the clip has only sound, no images")
    codec = stream.codec_context
    if codec is None:
        raise BadVideo("the clip's codec is not supported")
    if codec.width * codec.height > video_decoder.MAX_PIXELS:
        raise VideoTooLarge(f"the clip's frames are too large: {codec.width} x {codec.height} pixels")
    return stream


def _is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a cover picture, which is not part of the clip."""
    return bool(stream.disposition & Disposition.attached_pic)


def _is_cropped(container: str, data: bytes, width: int, height: int) -> bool:
    """Whether a clip says that only a part of its frames is shown, which few players obey.

    MP4 has a box `clap` for that, Matroska the elements PixelCrop.
    """
    if container != "mov":
        return _PIXEL_CROP.search(data, 0, max(0, data.find(_CLUSTER))) is not None
    at = data.find(_CLEAN_APERTURE)
    if at < 0 or len(data) < at + 40:
        return False
    fractions = struct.unpack_from(">8i", data, at + 8)  # width, height and offset of the center, x and y
    shown = [part / whole if whole else 0 for part, whole in zip(fractions[::2], fractions[1::2], strict=True)]
    return shown != [width, height, 0, 0]


def _end(packets: list["VideoPacket"]) -> float:
    """When the last packet's frame disappears, in seconds."""
    return max(time_of(packet) + float((packet.duration or 0) * (packet.time_base or 0)) for packet in packets)


def _declared_end(container: InputContainer) -> float:
    """When the clip ends according to the container: until then, players keep showing the last frame."""
    if container.duration is None:
        return -math.inf
    return ((container.start_time or 0) + container.duration) / av.time_base


def _packets(demuxed: Iterator["VideoPacket"], max_s: float, max_bytes: int) -> list["VideoPacket"]:
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
