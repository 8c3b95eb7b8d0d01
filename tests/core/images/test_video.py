"""detector_core.images.video: evenly spaced frames from memory, and clips that are rejected."""

import io
import time
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest

from detector_core.errors import BadVideo, VideoTooCostly, VideoTooLarge
from detector_core.images import display, video, video_decoder
from detector_core.images.video_decoder import Decoder, Frame
from tests.support.clips import STEP, compressed_matroska, gray, held_frames, laced_matroska, make_clip, sound_only


@pytest.mark.parametrize(
    ("codec", "container", "gop"),
    [
        ("libx264", "mp4", 6),
        ("libx264", "mp4", 1000),
        ("libx264", "matroska", 4),
        ("libvpx-vp9", "webm", 6),
        ("mpeg4", "mov", 6),
        ("mpeg4", "avi", 6),
    ],
)
def test_frames_are_evenly_spaced_and_belong_to_their_times(codec: str, container: str, gop: int) -> None:
    clip = video.sample_frames(make_clip(25, codec=codec, container=container, gop=gop), 5, max_s=60)
    frames = list(clip.frames)
    assert clip.duration_s == pytest.approx(2.5, abs=0.11)
    assert moments(frames) == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25], abs=0.06)
    for frame in frames:
        assert frame.image_HWC.shape == (48, 64, 3)
        assert frame.warnings == ()
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.moments_s[0], abs=STEP + 1)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_with_few_frames_yields_each_at_most_once(frames: int) -> None:
    found = list(video.sample_frames(make_clip(frames), 16, max_s=60).frames)
    assert len(found) == frames
    assert len(moments(found)) == 16


LOW, HIGH = 40, 200
STREAM = [(20 * number, gray(LOW)) for number in range(50)]
"""One second of fifty frames."""


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize(
    ("frames", "held"),
    [
        ([(0, gray(HIGH)), *((9000 + time, pixels) for time, pixels in STREAM)], range(14)),
        ([*STREAM, (1000, gray(HIGH))], range(2, 16)),
        ([*STREAM[::2], (1000, gray(HIGH)), *((9000 + time, pixels) for time, pixels in STREAM[::2])], range(2, 14)),
    ],
    ids=["first", "last", "middle"],
)
def test_a_frame_that_stays_counts_for_as_long_as_it_is_shown(
    frames: list[tuple[int, np.ndarray]], held: range, container: str
) -> None:
    clip = video.sample_frames(held_frames(frames, 10_000, container=container), 16, max_s=60)
    assert clip.duration_s == pytest.approx(10, abs=0.1)
    found = list(clip.frames)
    (long,) = [frame for frame in found if len(frame.moments_s) > 2]
    assert long.image_HWC.mean() == pytest.approx(HIGH, abs=2)
    assert long.moments_s == pytest.approx([10 * (number + 0.5) / 16 for number in held], abs=0.1)
    assert moments(found) == pytest.approx([10 * (number + 0.5) / 16 for number in range(16)], abs=0.1)
    assert all(frame.image_HWC.mean() == pytest.approx(LOW, abs=2) for frame in found if frame is not long)


def test_the_last_frame_stays_until_the_sound_ends() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream, sound = output.add_stream("libx264", rate=10), output.add_stream("aac", rate=8000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(10):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(gray(LOW if number < 9 else HIGH), format="rgb24")))
        output.mux(stream.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for number in range(40):
            silence.pts = 1024 * number
            output.mux(sound.encode(silence))
        output.mux(sound.encode())
    clip = video.sample_frames(buffer.getvalue(), 10, max_s=60)
    assert clip.duration_s == pytest.approx(5.12, abs=0.2)
    *_, last = clip.frames
    assert len(last.moments_s) == 8
    assert last.image_HWC.mean() == pytest.approx(HIGH, abs=2)


def test_frames_that_are_shown_before_the_key_frame_of_their_group_are_found() -> None:
    """An open group of pictures: its first frames in time follow its key frame in the file."""
    data = make_clip(40, gop=10, bf=2, **{"x264-params": "open-gop=1:scenecut=0:b-adapt=0"})
    found = list(video.sample_frames(data, 40, max_s=60).frames)
    assert len(found) == 40
    for frame in found:
        assert frame.warnings == ()
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.moments_s[0], abs=STEP + 2)


@pytest.mark.parametrize(
    ("codec", "container", "left_out"),
    [("libx264", "mp4", True), ("libx265", "matroska", True), ("libx264", "avi", False)],
)
def test_frames_that_nobody_sees_and_no_frame_depends_on_are_not_decoded(
    codec: str, container: str, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_clip(50, codec=codec, container=container, gop=50, bf=2, **{"x265-params": "log-level=none"})
    decode, decoded = Decoder._decode, [0]

    def counted(self: Decoder, *arguments: Any) -> Any:
        for timed in decode(self, *arguments):
            decoded[0] += 1
            yield timed

    monkeypatch.setattr(Decoder, "_decode", counted)
    found = list(video.sample_frames(data, 5, max_s=60).frames)
    few, decoded[0] = decoded[0], 0
    monkeypatch.setattr(video_decoder, "_SKIPS_FRAMES", ())
    expected = list(video.sample_frames(data, 5, max_s=60).frames)
    assert few < 0.8 * decoded[0] if left_out else few == decoded[0]
    assert moments(found) == moments(expected)
    for frame, full in zip(found, expected, strict=True):
        assert (frame.image_HWC == full.image_HWC).all()
        assert frame.warnings == full.warnings


def test_a_clip_that_needs_too_many_frames_decoded_is_refused_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(video_decoder, "MAX_DECODED_PIXELS", 25 * 64 * 48)
    assert len(list(video.sample_frames(make_clip(25, gop=25), 5, max_s=60).frames)) == 5
    assert len(list(video.sample_frames(make_clip(100, gop=5), 5, max_s=60).frames)) == 5  # looks at 5 of 20 groups
    monkeypatch.setattr(video_decoder, "MAX_DECODED_PIXELS", 15 * 64 * 48)
    with pytest.raises(VideoTooCostly):  # of the group before the damaged one, all frames
        list(video.sample_frames(damaged(100, [1, 2], gop=25), 1, max_s=60).frames)
    monkeypatch.setattr(Decoder, "_decode", Mock(side_effect=AssertionError))
    with pytest.raises(VideoTooCostly, match=r"too costly: 0\.0 billion pixels .* make it shorter or smaller"):
        video.sample_frames(make_clip(100, gop=100), 5, max_s=60)


def damaged(frames: int, groups: list[int], *, gop: int) -> bytes:
    """A clip of which no frame of some groups of pictures can be decoded."""
    data = bytearray(make_clip(frames, gop=gop))
    with av.open(io.BytesIO(data)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
    for number, packet in enumerate(packets):
        if number // gop in groups:
            data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    return bytes(data)


def moments(frames: list[Frame]) -> list[float]:
    """All sampled moments, in seconds."""
    return [moment for frame in frames for moment in frame.moments_s]


NOT_CLIPS = {
    "empty": b"",
    "text": b"text",
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concatenation script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "zeros": b"\x00" * 100,
    "sound": sound_only(),
    "truncated": make_clip()[:700],
    "only a header": b"\x00\x00\x00\x18ftypmp42",
}


@pytest.mark.parametrize("name", NOT_CLIPS)
def test_files_that_are_not_clips_are_rejected(name: str) -> None:
    with pytest.raises(BadVideo):
        list(video.sample_frames(NOT_CLIPS[name], 4, max_s=60).frames)


def test_a_clip_that_is_too_long_or_too_large_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VideoTooLarge, match="at most 2 s"):
        video.sample_frames(make_clip(25), 4, max_s=2)
    with pytest.raises(VideoTooLarge, match="takes too long"):
        list(video.sample_frames(make_clip(25), 4, max_s=60, deadline=time.monotonic() - 1).frames)
    monkeypatch.setattr(video, "MAX_PACKETS", 10)
    with pytest.raises(VideoTooLarge, match="more than 10 frames"):
        video.sample_frames(make_clip(25), 4, max_s=60)
    monkeypatch.setattr(video_decoder, "MAX_PIXELS", 1000)
    with pytest.raises(VideoTooLarge, match="64 x 48"):
        video.sample_frames(make_clip(25), 4, max_s=60)


def test_a_track_that_is_too_large_when_unpacked_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    data = compressed_matroska(5, 2**22)
    assert len(data) < 30_000
    with pytest.raises(VideoTooLarge, match="too large when unpacked"):
        video.sample_frames(data, 4, max_s=60)
    monkeypatch.setattr(video, "MIN_UNPACKED_BYTES", 2**25)
    with pytest.raises(BadVideo, match="no frame of the clip can be decoded"):  # zeros are not a valid frame
        list(video.sample_frames(data, 4, max_s=60).frames)


@pytest.mark.parametrize(
    ("groups", "shown"),
    [
        ([0], {0.75: 0.7, 1.25: 1.2, 1.75: 1.7, 2.25: 2.2}),
        ([0, 1], {1.25: 1.2, 1.75: 1.7, 2.25: 2.2}),
        ([2], {0.25: 0.2, 0.75: 0.7, 1.25: 1.1, 1.75: 1.1, 2.25: 2.2}),
        ([1, 2], {0.25: 0.2, 0.75: 0.5, 1.25: 0.5, 1.75: 0.5, 2.25: 2.2}),
    ],
)
def test_a_group_that_cannot_be_decoded_costs_only_its_own_frames(groups: list[int], shown: dict[float, float]) -> None:
    """The last frame before the group stays, as in a player; before the first there is none."""
    frames = list(video.sample_frames(damaged(25, groups, gop=6), 5, max_s=60).frames)
    assert moments(frames) == list(shown)
    for frame in frames:
        for moment in frame.moments_s:
            assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * shown[moment], abs=2)
    assert [frame.warnings for frame in frames].count(("damaged_frames",)) == 1


def test_if_the_first_frames_of_a_group_cannot_be_decoded_the_one_before_stays_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = Decoder._decode
    lost = [1.2, 1.3, 1.4, 1.5]
    monkeypatch.setattr(Decoder, "_decode", lambda *args: (pair for pair in decode(*args) if pair[0] not in lost))
    frames = list(video.sample_frames(make_clip(25, gop=12), 12, max_s=60).frames)
    shown = {moment: round(frame.image_HWC.mean() / STEP) for frame in frames for moment in frame.moments_s}
    assert list(shown.values()) == [1, 3, 5, 7, 9, 11, 11, 11, 17, 19, 21, 23]
    assert [frame.moments_s for frame in frames if frame.warnings] == [(1.146, 1.354, 1.562)]


def test_frames_without_a_time_are_skipped() -> None:
    data = laced_matroska([50, 100, 150, 200])
    with av.open(io.BytesIO(data)) as opened:
        times = [packet.pts for packet in opened.demux(video=0) if packet.size]
    assert times == [0, None, 1000, None, 2000, None, 3000, None]
    frames = list(video.sample_frames(data, 6, max_s=60).frames)
    assert [(frame.moments_s, round(frame.image_HWC.mean())) for frame in frames] == [
        ((0.25, 0.75), 50),
        ((1.25, 1.75), 100),
        ((2.25, 2.75), 150),
    ]


def test_a_frame_that_cannot_be_converted_raises_bad_video(monkeypatch: pytest.MonkeyPatch) -> None:
    as_shown, unsupported = display.as_shown, av.VideoFrame(8, 8, "rgb96le")
    monkeypatch.setattr(display, "as_shown", lambda _, *options: as_shown(unsupported, *options))
    with pytest.raises(BadVideo, match=r"a frame cannot be converted: .*not supported"):
        next(video.sample_frames(make_clip(1), 1, max_s=60).frames)


def test_damaged_bytes_raise_bad_video_or_yield_frames() -> None:
    draw = np.random.default_rng(0)
    originals = [
        make_clip(12),
        make_clip(12, codec="libvpx-vp9", container="webm"),
        make_clip(12, codec="mpeg4", container="avi"),
    ]
    for number in range(90):
        data = bytearray(originals[number % 3])
        for offset in draw.integers(12, len(data), 8):
            data[offset] = draw.integers(256)
        try:
            frames = list(video.sample_frames(bytes(data), 4, max_s=60, deadline=time.monotonic() + 5).frames)
        except BadVideo:
            continue
        assert all(frame.image_HWC.ndim == 3 for frame in frames)


def test_only_memory_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    av_open = av.open

    def record(file, *args, **options):  # type: ignore[no-untyped-def]
        opened.append(file)
        return av_open(file, *args, **options)

    data = make_clip(3)
    monkeypatch.setattr(av, "open", record)
    list(video.sample_frames(data, 2, max_s=60).frames)
    assert [type(file) for file in opened] == [io.BytesIO]
