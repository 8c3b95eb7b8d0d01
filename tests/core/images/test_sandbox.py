"""detector_core.images.sandbox: the same frames from a child process, and clips that would exhaust memory or time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector_core.errors import BadVideo
from detector_core.images import sandbox, video
from tests.support.clips import declare_samples, make_clip, sound_only

MEASURE = """
import resource, sys
from detector_core.errors import BadVideo
from detector_core.images import sandbox
try:
    with sandbox.sample_frames(sys.stdin.buffer.read(), 4, max_s=60) as clip:
        print(len(list(clip.frames)))
except BadVideo as error:
    print("rejected", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 2**10)
"""
"""Prints how much memory the child took, in MiB."""


def test_frames_are_the_same_as_without_a_child() -> None:
    data = make_clip(25)
    expected = video.sample_frames(data, 5, max_s=60)
    with sandbox.sample_frames(data, 5, max_s=60, deadline=time.monotonic() + 60) as clip:
        assert clip.duration_s == expected.duration_s
        for frame, expected_frame in zip(clip.frames, expected.frames, strict=True):
            assert (frame.moments_s, frame.warnings) == (expected_frame.moments_s, expected_frame.warnings)
            assert (frame.image_HWC == expected_frame.image_HWC).all()


@pytest.mark.parametrize(
    "data", [b"text", sound_only(), b"x" * 10**6, make_clip(25, fps=1)], ids=["text", "sound", "large", "too long"]
)
def test_errors_are_the_same_as_without_a_child(data: bytes) -> None:
    with pytest.raises(BadVideo) as expected:
        video.sample_frames(data, 4, max_s=20)
    with pytest.raises(BadVideo) as error, sandbox.sample_frames(data, 4, max_s=20):
        pass
    assert (error.type, str(error.value)) == (expected.type, str(expected.value))


def test_a_file_that_declares_forty_million_samples_does_not_take_gigabytes() -> None:
    """Without the sandbox it would take 2.3 GB: 24 bytes per sample, and as many again while the index grows."""
    bomb = declare_samples(make_clip(3), 40_000_000)
    assert len(bomb) < 2000
    process = subprocess.run([sys.executable, "-c", MEASURE], input=bomb, capture_output=True, check=True)
    outcome, mebibytes = process.stdout.split()
    assert outcome == b"rejected", process.stdout
    assert int(mebibytes) < 600


def test_the_largest_frames_fit_into_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 640 * 360)
    monkeypatch.setattr(video, "MIN_UNPACKED_BYTES", 0)
    data = make_clip(20, size=(4096, 2304), gop=100, refs=16, preset="ultrafast", x264opts="scenecut=0")
    too_little = sandbox.memory_limit(b"")
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "memory_limit", lambda _: too_little)
    with pytest.raises(BadVideo), sandbox.sample_frames(data, 1, max_s=60) as clip:
        list(clip.frames)
    monkeypatch.undo()
    with sandbox.sample_frames(data, 1, max_s=60) as clip:
        (frame,) = clip.frames
    assert frame.image_HWC.shape == (2304, 4096, 3)


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise SystemExit(0)", "while True: pass"])
def test_a_child_that_crashes_ends_early_or_never_ends_raises_bad_video(
    monkeypatch: pytest.MonkeyPatch, code: str, tmp_path: Path
) -> None:
    limited = tmp_path / "limited"
    limited.touch()
    limit = f"import os; sandbox.GRACE_S = 1; sandbox._limit_resources(2**28, 0); os.unlink({str(limited)!r})"
    monkeypatch.setattr(sandbox, "_CHILD", sandbox._CHILD.replace("sandbox.child()", f"{limit}\n{code}"))
    with pytest.raises(BadVideo, match="decoding it failed"), sandbox.sample_frames(make_clip(3), 1, max_s=60):
        pass
    assert not limited.exists(), "the child ended before its resources were limited"


def test_a_child_that_ends_within_a_frame_raises_bad_video(monkeypatch: pytest.MonkeyPatch) -> None:
    header = '{"duration_s": 1}\\n{"moments_s": [0], "warnings": [], "height": 4, "width": 4}\\n'
    one_byte_short = f"""print('{header}' + 47 * "x", end="")"""
    monkeypatch.setattr(sandbox, "_CHILD", one_byte_short)
    with sandbox.sample_frames(make_clip(3), 1, max_s=60) as clip:
        assert clip.duration_s == 1
        with pytest.raises(BadVideo, match="the clip cannot be read: decoding it failed"):
            next(clip.frames)


def test_leaving_early_ends_the_child() -> None:
    large = make_clip(40, size=(640, 480))
    with sandbox.sample_frames(large, 16, max_s=60) as clip:
        next(clip.frames)
        (child,) = children()
    assert not Path(f"/proc/{child}").exists()
    with pytest.raises(ZeroDivisionError), sandbox.sample_frames(large, 16, max_s=60):
        raise ZeroDivisionError
    assert children() == []


def children() -> list[int]:
    """Ids of the child processes that decode clips."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"detector_core" in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def test_a_child_cannot_write_files(tmp_path: Path) -> None:
    code = (
        "from detector_core.images import sandbox; sandbox._limit_resources(2**28, 60)\n"
        f"with open({str(tmp_path / 'x')!r}, 'wb') as file: file.write(b'x' * 10)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert process.returncode != 0
    assert (tmp_path / "x").read_bytes() == b""
