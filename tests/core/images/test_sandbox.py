"""detector_core.images.sandbox: the same frames from a child process, and clips that would exhaust memory or time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import child, sandbox, video, video_decoder
from detector_core.images.budget import CpuBudget
from detector_core.images.child import Cancellation, Cancelled
from tests.support.attacks import heavy_clip
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
    monkeypatch.setattr(video_decoder, "MAX_PIXELS", 640 * 360)
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


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import os; os.abort()", "SIGABRT"), ("raise SystemExit(0)", "exit code 0"), ("print('[')", "exit code 0")],
)
def test_a_child_that_crashes_or_ends_early_raises_bad_video(
    monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    monkeypatch.setattr(child, "_CODE", code.replace("'['", "'[', end=''"))
    with (
        pytest.raises(BadVideo, match=rf"decoding it failed \({reason}\)"),
        sandbox.sample_frames(make_clip(3), 1, max_s=60),
    ):
        pass


def test_a_child_that_ends_within_a_frame_raises_bad_video(monkeypatch: pytest.MonkeyPatch) -> None:
    head = {"moments_s": [0], "warnings": [], "height": 4, "width": 4}
    code = f"print({json.dumps(json.dumps({'duration_s': 1}))}); print({json.dumps(json.dumps(head))}); print(46 * 'x')"
    monkeypatch.setattr(child, "_CODE", code.replace("{", "{{").replace("}", "}}"))
    with sandbox.sample_frames(make_clip(3), 1, max_s=60) as clip:
        assert clip.duration_s == 1
        with pytest.raises(BadVideo, match="the clip cannot be read: decoding it failed"):
            next(clip.frames)


def test_a_child_that_returns_too_large_a_frame_raises_bad_video(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox.sample_frames(make_clip(3), 1, max_s=60) as clip:
        monkeypatch.setattr(video_decoder, "MAX_PIXELS", 10)
        with pytest.raises(BadVideo, match="too many pixels"):
            next(clip.frames)


def test_a_clip_ends_with_its_budget_of_cpu_time() -> None:
    budget, data = CpuBudget(0.02), heavy_clip(600, (1280, 720))
    with (
        pytest.raises(VideoTooLarge, match=r"took more than 0.02 s of CPU time"),
        sandbox.sample_frames(data, 1, max_s=60, budget=budget) as clip,
    ):
        list(clip.frames)
    assert budget.used == budget.seconds
    with pytest.raises(VideoTooLarge), sandbox.sample_frames(make_clip(3), 1, max_s=60, budget=budget):
        pass


def test_a_clip_returns_what_it_does_not_use_of_its_budget() -> None:
    budget = CpuBudget(100)
    with sandbox.sample_frames(make_clip(3), 3, max_s=60, budget=budget) as clip:
        assert len(list(clip.frames)) == 3
    assert 0.01 < budget.used < 20


def cancel_within(clip: video.Clip, cancellation: Cancellation) -> None:
    next(clip.frames)
    assert len(children()) == 1
    cancellation.cancel()
    list(clip.frames)


def test_cancelling_ends_the_child() -> None:
    cancellation = Cancellation()
    data = make_clip(40, size=(640, 480))
    with pytest.raises(Cancelled), sandbox.sample_frames(data, 16, max_s=60, cancellation=cancellation) as clip:
        cancel_within(clip, cancellation)
    assert children() == []
    with pytest.raises(Cancelled), sandbox.sample_frames(make_clip(3), 1, max_s=60, cancellation=cancellation):
        pass


def test_a_bug_in_the_child_is_not_taken_for_a_damaged_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "from detector_core.images import video; video.sample_frames = None; child()"
    monkeypatch.setattr(child, "_CODE", child._CODE.replace("child()", broken))
    with pytest.raises(RuntimeError, match="TypeError"), sandbox.sample_frames(make_clip(3), 1, max_s=60):
        pass


def test_leaving_early_ends_the_child() -> None:
    large = make_clip(40, size=(640, 480))
    with sandbox.sample_frames(large, 16, max_s=60) as clip:
        next(clip.frames)
        (pid,) = children()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ZeroDivisionError), sandbox.sample_frames(large, 16, max_s=60):
        raise ZeroDivisionError
    assert children() == []


def children() -> list[int]:
    """Ids of the child processes that decode clips."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and sandbox.__name__.encode() in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids
