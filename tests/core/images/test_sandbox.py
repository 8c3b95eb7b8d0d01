"""detector_core.images.sandbox: the same frames from a process of its own, and files that would take all memory or
time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import sandbox, video
from tests.support.clips import clip, sound, states_samples

MEASURE = """
import resource, sys
from detector_core import decoding
from detector_core.errors import BadVideo
try:
    with decoding.sampled(sys.stdin.buffer.read(), 4, max_s=60) as found:
        print(len(list(found.frames)))
except BadVideo as error:
    print("refused", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 2**10)
"""


def test_frames_are_those_of_this_process() -> None:
    data = clip(25)
    here = video.sample_frames(data, 5, max_s=60)
    with sandbox.sample_frames(data, 5, max_s=60, deadline=time.monotonic() + 60) as there:
        assert there.duration_s == here.duration_s
        for one, other in zip(here.frames, there.frames, strict=True):
            assert one.time_s == other.time_s
            assert (one.image_HWC == other.image_HWC).all()


def test_what_is_refused_is_refused_in_the_same_words() -> None:
    for data, kind, said in (
        (b"text", BadVideo, "not a clip: MP4"),
        (sound(), BadVideo, "only sound"),
        (b"x" * 10**6, BadVideo, "not a clip: MP4"),
        (clip(25, fps=1), VideoTooLarge, "at most 20 s"),
    ):
        with pytest.raises(kind, match=said), sandbox.sample_frames(data, 4, max_s=20):
            pass


def test_a_file_that_states_forty_million_samples_takes_no_gigabytes() -> None:
    """Opened here it would take 2.3 GB; each sample of an index takes 24 bytes, and growing it as many again."""
    bomb = states_samples(clip(3), 40_000_000)
    assert len(bomb) < 2000
    found = subprocess.run([sys.executable, "-c", MEASURE], input=bomb, capture_output=True, check=True)
    said, mebibytes = found.stdout.split()
    assert said == b"refused", found.stdout
    assert int(mebibytes) < 600


def test_the_largest_frames_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 640 * 360)
    monkeypatch.setattr(video, "LEAST_UNPACKED", 0)
    data = clip(20, size=(4096, 2304), gop=100, refs=16, preset="ultrafast", x264opts="scenecut=0")
    room = sandbox.memory_limit(b"")
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "memory_limit", lambda _: room)
    with pytest.raises(BadVideo), sandbox.sample_frames(data, 1, max_s=60) as found:
        list(found.frames)
    monkeypatch.undo()
    with sandbox.sample_frames(data, 1, max_s=60) as found:
        (frame,) = found.frames
    assert frame.image_HWC.shape == (2304, 4096, 3)


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise SystemExit(0)", "while True: pass"])
def test_a_decoder_that_breaks_or_never_ends_is_a_bad_clip(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    bound = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from detector_core import decoding as d;"
    monkeypatch.setattr(sandbox, "_CHILD", f"{bound} d._bound(2**28, 0)\n{code}")
    monkeypatch.setattr(sandbox, "SPARE_S", 1)
    with pytest.raises(BadVideo, match="decoding it failed"), sandbox.sample_frames(clip(3), 1, max_s=60):
        pass


def test_a_decoder_that_breaks_within_a_frame_is_a_bad_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    half = r"""print('{"duration_s": 1}\n{"time_s": 0, "height": 4, "width": 4}\n' + 47 * "x", end="")"""
    monkeypatch.setattr(sandbox, "_CHILD", half)
    with sandbox.sample_frames(clip(3), 1, max_s=60) as found:
        assert found.duration_s == 1
        with pytest.raises(BadVideo, match="the clip cannot be read: decoding it failed"):
            next(found.frames)


def test_leaving_early_ends_the_child() -> None:
    large = clip(40, size=(640, 480))
    with sandbox.sample_frames(large, 16, max_s=60) as found:
        next(found.frames)
        (child,) = children()
    assert not Path(f"/proc/{child}").exists()
    with pytest.raises(ZeroDivisionError), sandbox.sample_frames(large, 16, max_s=60):
        raise ZeroDivisionError
    assert children() == []


def children() -> list[int]:
    """Of this process, those that decode."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"detector_core" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_child_can_write_no_file(tmp_path: Path) -> None:
    code = (
        "from detector_core import decoding; decoding._bound(2**28, 60)\n"
        f"with open({str(tmp_path / 'x')!r}, 'wb') as file: file.write(b'x' * 10)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert found.returncode != 0
    assert (tmp_path / "x").read_bytes() == b""
