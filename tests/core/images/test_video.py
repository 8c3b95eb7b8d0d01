"""detector_core.images.video: evenly spaced frames from memory, and clips that are refused."""

import io
import time

import av
import numpy as np
import pytest

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import video
from tests.support.clips import STEP, clip, laced, sound, unpacks


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
def test_frames_are_evenly_spaced_and_are_those_of_their_time(codec: str, container: str, gop: int) -> None:
    found = video.sample_frames(clip(25, codec=codec, container=container, gop=gop), 5, max_s=60)
    frames = list(found.frames)
    assert found.duration_s == pytest.approx(2.5, abs=0.11)
    assert [frame.time_s for frame in frames] == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25], abs=0.11)
    for frame in frames:
        assert frame.image_HWC.shape == (48, 64, 3)
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.time_s, abs=STEP + 1)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_of_few_frames_gives_each_once(frames: int) -> None:
    times = [frame.time_s for frame in video.sample_frames(clip(frames), 16, max_s=60).frames]
    assert 1 <= len(times) <= frames
    assert len(set(times)) == len(times)


def test_a_rotated_clip_is_turned_upright() -> None:
    data = bytearray(clip(3))
    matrix = data.index(bytes.fromhex("00010000" + "0" * 24 + "00010000"), data.index(b"tkhd"))
    one, minus = 0x10000, 2**32 - 0x10000
    for place, value in enumerate((0, one, 0, minus, 0)):
        data[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big")
    (frame, *_) = video.sample_frames(bytes(data), 2, max_s=60).frames
    assert frame.image_HWC.shape == (64, 48, 3)


def test_what_is_no_clip_is_refused() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"
    listing = b"ffconcat version 1.0\nfile /etc/passwd\n"
    for data in (b"", b"text", playlist, listing, b"\x00" * 100, sound(), clip()[:700], b"\x00\x00\x00\x18ftypmp42"):
        with pytest.raises(BadVideo):
            list(video.sample_frames(data, 4, max_s=60).frames)


def test_a_clip_that_is_too_long_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VideoTooLarge, match="at most 2 s"):
        video.sample_frames(clip(25), 4, max_s=2)
    with pytest.raises(VideoTooLarge, match="takes too long"):
        list(video.sample_frames(clip(25), 4, max_s=60, deadline=time.monotonic() - 1).frames)
    monkeypatch.setattr(video, "MAX_PACKETS", 10)
    with pytest.raises(VideoTooLarge, match="more than 10 frames"):
        video.sample_frames(clip(25), 4, max_s=60)
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(VideoTooLarge, match="64 x 48"):
        video.sample_frames(clip(25), 4, max_s=60)


def test_a_track_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = unpacks(5, 2**22)
    assert len(data) < 30_000
    with pytest.raises(VideoTooLarge, match="unpack to too much"):
        video.sample_frames(data, 4, max_s=60)
    monkeypatch.setattr(video, "LEAST_UNPACKED", 2**25)
    with pytest.raises(BadVideo, match="no frame of the clip can be decoded"):  # zeros are no image
        list(video.sample_frames(data, 4, max_s=60).frames)


@pytest.mark.parametrize(
    ("lost", "times"),
    [([0], [0.8, 1.3, 1.7, 2.3]), ([0, 1], [1.3, 1.7, 2.3]), ([2], [0.3, 0.8, 1.1, 2.3])],
)
def test_a_group_that_cannot_be_decoded_costs_only_its_own_frames(lost: list[int], times: list[float]) -> None:
    """The last frame before it, if there is one, stands for them."""
    data = bytearray(clip(25, gop=6))
    with av.open(io.BytesIO(data)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
    for number, packet in enumerate(packets):
        if number // 6 in lost:
            data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    frames = list(video.sample_frames(bytes(data), 5, max_s=60).frames)
    assert [frame.time_s for frame in frames] == times
    for frame in frames:
        assert frame.image_HWC.mean() == pytest.approx(STEP * 10 * frame.time_s, abs=STEP + 1)


def test_a_frame_without_a_time_is_left_out_and_the_others_stay() -> None:
    data = laced([50, 100, 150, 200])
    with av.open(io.BytesIO(data)) as opened:
        packets = [packet.pts for packet in opened.demux(video=0) if packet.size]
    assert packets == [0, None, 1000, None, 2000, None, 3000, None]
    frames = list(video.sample_frames(data, 8, max_s=60).frames)
    assert [(frame.time_s, round(frame.image_HWC.mean())) for frame in frames] == [(0, 50), (1, 100), (2, 150)]


def test_a_frame_that_cannot_be_turned_into_pixels_is_a_bad_clip() -> None:
    with pytest.raises(BadVideo, match=r"a frame cannot be converted: .*not supported"):
        video._upright(av.VideoFrame(8, 8, "rgb96le"), 0.0)


def test_damaged_bytes_are_bad_or_give_frames_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    originals = [clip(12), clip(12, codec="libvpx-vp9", container="webm"), clip(12, codec="mpeg4", container="avi")]
    for number in range(90):
        data = bytearray(originals[number % 3])
        for place in draw.integers(12, len(data), 8):
            data[place] = draw.integers(256)
        try:
            frames = list(video.sample_frames(bytes(data), 4, max_s=60, deadline=time.monotonic() + 5).frames)
        except BadVideo:
            continue
        assert all(frame.image_HWC.ndim == 3 for frame in frames)


def test_nothing_but_memory_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    really = av.open

    def remember(file, *rest, **named):  # type: ignore[no-untyped-def]
        opened.append(file)
        return really(file, *rest, **named)

    data = clip(3)
    monkeypatch.setattr(av, "open", remember)
    list(video.sample_frames(data, 2, max_s=60).frames)
    assert all(hasattr(file, "read") for file in opened)
