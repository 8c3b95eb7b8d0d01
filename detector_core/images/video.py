"""Samples moments of a short clip in memory, and decodes the frame that a player shows at each.

Moments are sampled, not frames, because some frames last longer than others: in a recording of a screen, a still image
is one frame that may stay for most of the clip. Nothing is written to disk and no other file or address is opened. The
first bytes determine the container, and only that demuxer is tried: FFmpeg's own detection would also accept playlists,
which name other files and addresses. Sound is ignored, and endless streams are refused.
"""

import bisect
import io
import itertools
import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import av
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import display
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
_Timed = tuple[float, VideoFrame]
"""A frame and the time at which it appears, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame as a player shows it.

    Attributes:
        moments_s: the sampled moments at which it is shown, in seconds since the beginning of the clip.
        image_HWC: uint8 RGB.
        warnings: ``not_as_shown`` if the clip declares something about its display that was not applied;
            ``damaged_frames`` if another frame belongs to one of the moments, but cannot be decoded.
    """

    moments_s: tuple[float, ...]
    image_HWC: Pixels
    warnings: tuple[str, ...] = ()


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
        stream = _shown_stream(container)
        packets = _packets(container.demux(stream), max_s, max(MAX_UNPACKED_RATIO * len(data), MIN_UNPACKED_BYTES))
    except (av.FFmpegError, ValueError, OSError, OverflowError) as error:
        raise BadVideo(f"the clip cannot be read: {_reason(error)}") from None
    kept = [packet for packet in packets if math.isfinite(_time(packet)) and not packet.is_discard]
    if not kept:
        raise BadVideo("the clip has no frames")
    timed = sorted({_time(packet) for packet in kept})
    duration_s = max(_end(kept), _declared_end(container)) - timed[0]
    if duration_s > max_s:
        raise VideoTooLarge(f"the clip lasts {duration_s:.0f} s: at most {max_s:g} s are allowed")
    moments = [timed[0] + duration_s * (number + 0.5) / count for number in range(count)]
    shown: dict[float, list[float]] = {}
    for moment in moments:
        shown.setdefault(timed[bisect.bisect_right(timed, moment) - 1], []).append(moment)
    others = [other for other in container.streams.video if other is not stream and not _is_cover(other)]
    applied = not others and stream.metadata.get("alpha_mode") != "1"
    decoder = _Decoder(stream, packets, deadline, start=timed[0], applied=applied)
    return Clip(duration_s=duration_s, frames=decoder.frames(shown))


def _shown_stream(container: InputContainer) -> VideoStream:
    """The stream that a player shows; raises BadVideo if there is none, VideoTooLarge for large frames."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or _is_cover(stream):
        raise BadVideo("the clip has only sound, no images")
    codec = stream.codec_context
    if codec is None:
        raise BadVideo("the clip's codec is not supported")
    if codec.width * codec.height > MAX_PIXELS:
        raise VideoTooLarge(f"the clip's frames are too large: {codec.width} x {codec.height} pixels")
    return stream


def _is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a cover picture, which is not part of the clip."""
    return bool(stream.disposition & Disposition.attached_pic)


def _end(packets: list["_Packet"]) -> float:
    """When the last packet's frame disappears, in seconds."""
    return max(_time(packet) + float((packet.duration or 0) * (packet.time_base or 0)) for packet in packets)


def _declared_end(container: InputContainer) -> float:
    """When the clip ends according to the container: until then, players keep showing the last frame."""
    if container.duration is None:
        return -math.inf
    return ((container.start_time or 0) + container.duration) / av.time_base


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


class _Decoder:
    """Decodes the frames that are shown at given times, and of each group of pictures no more than necessary.

    Args:
        stream: the stream of the packets.
        packets: all packets of the clip, in decoding order.
        deadline: value of ``time.monotonic()`` at which decoding gives up.
        start: time of the first frame.
        applied: whether everything that the clip declares about its display is applied, as far as frames do not say so.
    """

    def __init__(
        self, stream: VideoStream, packets: list["_Packet"], deadline: float, *, start: float, applied: bool
    ) -> None:
        self.stream, self.packets, self.deadline = stream, packets, deadline
        self.start, self.applied = start, applied
        self.codec = stream.codec_context
        self.codec.thread_count = 1
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        # A packet without a time does not begin a group: Matroska gives a time only to the first of several frames in
        # a block.
        keys = (number for number, packet in enumerate(packets) if packet.is_keyframe and math.isfinite(_time(packet)))
        self.groups = sorted({0, *keys})
        self.before: tuple[int, _Timed | None] = -1, None

    def frames(self, shown: dict[float, list[float]]) -> Iterator[Frame]:
        """Yields the frames that are shown at some moments.

        Args:
            shown: the moments by the time at which their frame appears, both in seconds and ascending.
        """
        moments_s: list[float] = []
        held: _Timed | None = None
        damaged = False
        for time_s, frame in self._decoded(list(shown)):
            if frame is not None and frame is not held:
                if held:
                    yield self._frame(held[1], moments_s, damaged)
                    moments_s, damaged = [], False
                held = frame
            damaged |= frame is None or frame[0] < time_s
            if held:
                moments_s += (round(moment - self.start, 3) for moment in shown[time_s])
        if not held:
            raise BadVideo("no frame of the clip can be decoded")
        yield self._frame(held[1], moments_s, damaged)

    def _decoded(self, times: list[float]) -> "Iterator[tuple[float, _Timed | None]]":
        """For each time, yields the last frame that appears until then; None if there is none."""
        numbers = {_time(packet): number for number, packet in enumerate(self.packets)}

        def group_of(time_s: float) -> int:
            # Frames may be shown before the key frame that they follow in the file: they need the group before.
            keys = (key for key in self.groups if key <= numbers[time_s] and _time(self.packets[key]) <= time_s)
            return max(keys, default=0)

        for start, of_group in itertools.groupby(times, group_of):
            wanted = deque(of_group)
            last = max(numbers[time_s] for time_s in wanted)
            stop = next((key for key in self.groups if key > last), len(self.packets))
            yield from self._group(start, stop, wanted)

    def _group(self, start: int, stop: int, wanted: deque[float]) -> "Iterator[tuple[float, _Timed | None]]":
        """As :meth:`_decoded`, for times in one group of pictures, which begins with packet ``start``."""
        latest: _Timed | None = None
        decoding = self._decode(start, stop)
        for frame in decoding:
            if latest is None and wanted[0] < frame[0]:  # what belongs to the first times cannot be decoded
                decoding.close()
                before = self._last_before(start)
                while wanted and wanted[0] < frame[0]:
                    yield wanted.popleft(), before
                yield from self._group(start, stop, wanted) if wanted else ()
                return
            while wanted and wanted[0] < frame[0]:
                yield wanted.popleft(), latest
            if not wanted:
                break
            latest = frame
            if wanted[-1] == frame[0]:
                break
        decoding.close()
        while wanted:
            yield wanted.popleft(), latest or self._last_before(start)

    def _last_before(self, start: int) -> "_Timed | None":
        """The last frame of the group before packet ``start``, which a player keeps showing if no other follows."""
        if self.before[0] != start:
            earlier = [key for key in self.groups if key < start]
            frames = deque(self._decode(earlier[-1], start), maxlen=1) if earlier else deque[_Timed]()
            self.before = start, frames[0] if frames else None
        return self.before[1]

    def _decode(self, start: int, stop: int) -> "Generator[_Timed, None, None]":
        """Decodes packets and yields their frames with their times; the packet ``start`` begins a group."""
        try:
            for packet in [*self.packets[start:stop], None]:
                if time.monotonic() > self.deadline:
                    raise VideoTooLarge("the clip takes too long to decode")
                try:
                    frames = self.codec.decode(packet)
                except (av.FFmpegError, ValueError, OSError):
                    continue  # a damaged frame; the others may be intact
                for frame in frames:
                    if frame.pts is not None and self.stream.time_base is not None:
                        # frame.time is 0 for the last frames of a group
                        yield float(frame.pts * self.stream.time_base), frame
        finally:
            self.codec.flush_buffers()  # always: a codec that was sent the end of the stream accepts no more packets

    def _frame(self, frame: VideoFrame, moments_s: list[float], damaged: bool) -> Frame:
        try:
            image_HWC, applied = display.as_shown(frame, self.stream.sample_aspect_ratio, MAX_PIXELS)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise BadVideo(f"a frame cannot be converted: {_reason(error)}") from None
        warnings = {"not_as_shown": not (applied and self.applied), "damaged_frames": damaged}
        return Frame(
            moments_s=tuple(moments_s), image_HWC=image_HWC, warnings=tuple(name for name in warnings if warnings[name])
        )


def _time(packet: "_Packet") -> float:
    """Presentation time in seconds; -inf if the packet has none."""
    return -math.inf if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
