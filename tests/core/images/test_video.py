"""detector_core.images.video: evenly spaced frames from memory, and clips that are rejected."""

import io
import time

import av
import numpy as np
import pytest

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import video
from tests.support.clips import STEP, compressed_matroska, laced_matroska, make_clip, sound_only


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
    assert [frame.time_s for frame in frames] == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25], abs=0.11)
    for frame in frames:
        assert frame.image_HWC.shape == (48, 64, 3)
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.time_s, abs=STEP + 1)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_with_few_frames_yields_each_at_most_once(frames: int) -> None:
    times = [frame.time_s for frame in video.sample_frames(make_clip(frames), 16, max_s=60).frames]
    assert 1 <= len(times) <= frames
    assert len(set(times)) == len(times)


def test_the_rotation_of_a_clip_is_applied() -> None:
    data = bytearray(make_clip(3))
    matrix = data.index(bytes.fromhex("00010000" + "0" * 24 + "00010000"), data.index(b"tkhd"))
    one, minus_one = 0x10000, 2**32 - 0x10000
    for number, value in enumerate((0, one, 0, minus_one, 0)):
        data[matrix + 4 * number : matrix + 4 * number + 4] = value.to_bytes(4, "big")
    (frame, *_) = video.sample_frames(bytes(data), 2, max_s=60).frames
    assert frame.image_HWC.shape == (64, 48, 3)


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
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
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
    ("damaged", "times"),
    [([0], [0.8, 1.3, 1.7, 2.3]), ([0, 1], [1.3, 1.7, 2.3]), ([2], [0.3, 0.8, 1.1, 2.3])],
)
def test_a_group_that_cannot_be_decoded_costs_only_its_own_frames(damaged: list[int], times: list[float]) -> None:
    """The last frame before the group, if there is one, replaces them."""
    data = bytearray(make_clip(25, gop=6))
    with av.open(io.BytesIO(data)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
    for number, packet in enumerate(packets):
        if number // 6 in damaged:
            data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    frames = list(video.sample_frames(bytes(data), 5, max_s=60).frames)
    assert [frame.time_s for frame in frames] == times
    for frame in frames:
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.time_s, abs=STEP + 1)


def test_frames_without_a_time_are_skipped() -> None:
    data = laced_matroska([50, 100, 150, 200])
    with av.open(io.BytesIO(data)) as opened:
        times = [packet.pts for packet in opened.demux(video=0) if packet.size]
    assert times == [0, None, 1000, None, 2000, None, 3000, None]
    frames = list(video.sample_frames(data, 8, max_s=60).frames)
    assert [(frame.time_s, round(frame.image_HWC.mean())) for frame in frames] == [(0, 50), (1, 100), (2, 150)]


def test_a_frame_that_cannot_be_converted_raises_bad_video() -> None:
    with pytest.raises(BadVideo, match=r"a frame cannot be converted: .*not supported"):
        video._upright(av.VideoFrame(8, 8, "rgb96le"), 0.0)


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
