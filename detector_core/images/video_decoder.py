"""Decodes the frames of a clip that a player shows at given moments, and of each group of pictures no more than that.

A group begins with a key frame, and each of its frames may depend on any before it. So a moment costs all frames from
its key frame on, and a clip without further key frames costs every frame: what that comes to is known, and bounded,
before the first frame is decoded.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from detector_core.errors import BadVideo, VideoTooCostly, VideoTooLarge
from detector_core.images import display
from detector_core.images.decode import Pixels

MAX_PIXELS: Final = 4096 * 2304
"""Maximum width times height of a frame; a decoder keeps up to seventeen of them."""
MAX_DECODED_PIXELS: Final = 6 * 10**9
"""Maximum number of pixels of all frames that must be decoded: those of a minute of 1920 x 1080 at 48 frames a second.
A clip with a key frame every second needs a tenth of that."""
MAX_EXCESS: Final = 2
"""How many times as much is decoded at most because frames are damaged, or larger than the container says."""

_SKIPS_FRAMES: Final = ("h264", "hevc")
"""Codecs whose decoder leaves out frames on which no other depends when it is told to; AV1's also leaves out others."""

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
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


class _Group(NamedTuple):
    """The part of a group of pictures that is decoded, as numbers of packets: from ``start`` to ``last``.

    Damaged frames may make it longer, up to ``stop``, where another group begins. ``wanted`` are the times of the
    frames to show, in seconds.
    """

    start: int
    last: int
    stop: int
    wanted: list[float]


class Decoder:
    """Decodes the frames that are shown at given times, and of each group of pictures no more than necessary.

    Args:
        stream: the stream of the packets.
        packets: all packets of the clip, in decoding order.
        deadline: value of ``time.monotonic()`` at which decoding gives up.
        start: time of the first frame.
        applied: whether everything that the clip declares about its display is applied, as far as frames do not say so.
    """

    def __init__(
        self, stream: VideoStream, packets: list["VideoPacket"], deadline: float, *, start: float, applied: bool
    ) -> None:
        self.stream, self.packets, self.deadline = stream, packets, deadline
        self.start, self.applied = start, applied
        self.codec = stream.codec_context
        self.codec.thread_count = 1
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        # A packet without a time does not begin a group: Matroska gives a time only to the first of several frames in
        # a block.
        keys = (
            number for number, packet in enumerate(packets) if packet.is_keyframe and math.isfinite(time_of(packet))
        )
        self.groups = sorted({0, *keys})
        # In AVI the times of packets are not those of their frames if the order of decoding differs.
        self.skips_frames = self.codec.name in _SKIPS_FRAMES and stream.container.format.name != "avi"
        self.before: tuple[int, _Timed | None] = -1, None
        self.pixels = 0

    def frames(self, shown: dict[float, list[float]]) -> Iterator[Frame]:
        """Returns the frames that are shown at some moments; decodes while they are iterated.

        Args:
            shown: the moments by the time at which their frame appears, both in seconds and ascending.

        Raises:
            VideoTooCostly: that takes decoding more than MAX_DECODED_PIXELS. Nothing was decoded yet.
        """
        plan = self._plan(list(shown))
        _check_cost(sum(group.last + 1 - group.start for group in plan) * self.codec.width * self.codec.height)
        return self._frames(plan, shown)

    def _plan(self, times: list[float]) -> list[_Group]:
        """The groups to decode for some times, in order."""
        numbers = {time_of(packet): number for number, packet in enumerate(self.packets)}

        def group_of(time_s: float) -> int:
            # Frames may be shown before the key frame that they follow in the file: they need the group before.
            keys = (key for key in self.groups if key <= numbers[time_s] and time_of(self.packets[key]) <= time_s)
            return max(keys, default=0)

        plan = []
        for start, of_group in itertools.groupby(times, group_of):
            wanted = list(of_group)
            last = max(numbers[time_s] for time_s in wanted)
            stop = next((key for key in self.groups if key > last), len(self.packets))
            plan.append(_Group(start, last, stop, wanted))
        return plan

    def _frames(self, plan: list[_Group], shown: dict[float, list[float]]) -> Iterator[Frame]:
        moments_s: list[float] = []
        held: _Timed | None = None
        damaged = False
        decoded = (pair for group in plan for pair in self._group(group.start, group.stop, deque(group.wanted)))
        for time_s, frame in decoded:
            if frame is not None and (held is None or frame[0] != held[0]):
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

    def _group(self, start: int, stop: int, wanted: deque[float]) -> "Iterator[tuple[float, _Timed | None]]":
        """For each time in a group, yields the last frame that appears until then; None if there is none."""
        latest: _Timed | None = None
        decoding = self._decode(start, stop, {*wanted})
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
            frames = deque(self._decode(earlier[-1], start, None), maxlen=1) if earlier else deque[_Timed]()
            self.before = start, frames[0] if frames else None
        return self.before[1]

    def _decode(self, start: int, stop: int, wanted: set[float] | None) -> "Generator[_Timed, None, None]":
        """Decodes packets and yields their frames with their times; the packet ``start`` begins a group.

        Args:
            wanted: times of the frames to yield; others are left out if no frame depends on them. None for all.
        """
        try:
            for packet in [*self.packets[start:stop], None]:
                if time.monotonic() > self.deadline:
                    raise VideoTooLarge("the clip takes too long to decode")
                unseen = wanted is not None and packet is not None and time_of(packet) not in wanted
                self.codec.skip_frame = "NONREF" if unseen and self.skips_frames else "DEFAULT"
                try:
                    frames = self.codec.decode(packet)
                except (av.FFmpegError, ValueError, OSError):
                    continue  # a damaged frame; the others may be intact
                finally:
                    self.pixels += self.codec.width * self.codec.height
                    _check_cost(self.pixels / MAX_EXCESS)
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
            raise BadVideo(f"a frame cannot be converted: {reason(error)}") from None
        warnings = {"not_as_shown": not (applied and self.applied), "damaged_frames": damaged}
        return Frame(
            moments_s=tuple(moments_s), image_HWC=image_HWC, warnings=tuple(name for name in warnings if warnings[name])
        )


def _check_cost(pixels: float) -> None:
    if pixels > MAX_DECODED_PIXELS:
        raise VideoTooCostly(
            f"the clip is too costly: {pixels / 1e9:.1f} billion pixels would have to be decoded, and at most "
            f"{MAX_DECODED_PIXELS / 1e9:g} are allowed; make it shorter or smaller, or give it more key frames"
        )


def time_of(packet: "VideoPacket") -> float:
    """Presentation time in seconds; -inf if the packet has none."""
    return -math.inf if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
