"""Frames of a clip, decoded in a process of its own: how much memory and time a file may cost is bounded from outside.

A file of two kilobytes may state an index of a hundred million samples, for which FFmpeg takes gigabytes before the
first frame; and what decodes video breaks now and then. Here that costs the child, which also can write no file. What
:mod:`detector_core.images.video` refuses is refused in the same words. Bounds are those of Linux; where a system has
none the
clip is decoded without.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np

from detector_core import errors
from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.images import video
from detector_core.images.video import Clip, Frame

FRAMES_HELD: Final = 20
"""Of the largest, with two bytes a pixel: what a decoder keeps, and the one that is turned into pixels."""
SPARE_S: Final = 5
"""After its deadline a child is ended by the kernel; before, it ends by itself."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from detector_core.images import sandbox; sandbox.child()"
)


def memory_limit(data: bytes) -> int:
    """Bytes that the child may take for a clip, beyond its own code."""
    packets = max(video.UNPACKED * len(data), video.LEAST_UNPACKED)
    return 2 * FRAMES_HELD * video.MAX_PIXELS + len(data) + packets


@contextmanager
def sample_frames(data: bytes, count: int, *, max_s: float, deadline: float = math.inf) -> Iterator[Clip]:
    """:func:`detector_core.images.video.sample_frames` in a child, which lives for the length of the ``with`` block.

    Raises:
        BadVideo, VideoTooLarge: as there, also while ``frames`` is iterated; and for what needs too much memory.
    """
    wanted = {"count": count, "max_s": max_s, "deadline": deadline, "memory": memory_limit(data)}
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), json.dumps(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            with suppress(BrokenPipeError):  # the child has ended; what it said is read below
                child.stdin.write(data)
            with suppress(BrokenPipeError):
                child.stdin.close()
            yield Clip(duration_s=_said(child.stdout)["duration_s"], frames=_frames(child.stdout))
        finally:
            child.kill()


def _said(pipe: Any) -> dict[str, Any]:
    """The next line of a child. Raises what it says went wrong."""
    line = pipe.readline()
    if not line:
        raise BadVideo("the clip cannot be read: decoding it failed")
    said: dict[str, Any] = json.loads(line)
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return said


def _frames(pipe: Any) -> Iterator[Frame]:
    while "end" not in (said := _said(pipe)):
        pixels = bytearray(said["height"] * said["width"] * 3)
        if pipe.readinto(pixels) != len(pixels):
            raise BadVideo("the clip cannot be read: decoding it failed")
        image_HWC = np.frombuffer(pixels, np.uint8).reshape(said["height"], said["width"], 3)
        yield Frame(time_s=said["time_s"], image_HWC=image_HWC)


def child() -> None:  # pragma: no cover - runs in a child process that may write no file
    """What the child does: a clip from stdin, lines of JSON and pixels to stdout."""
    wanted = json.loads(sys.argv[2])
    say = sys.stdout.buffer

    def line(**said: object) -> None:
        say.write(json.dumps(said).encode() + b"\n")

    try:
        _bound(wanted["memory"], wanted["deadline"] - time.monotonic())
        data = sys.stdin.buffer.read()
        clip = video.sample_frames(data, wanted["count"], max_s=wanted["max_s"], deadline=wanted["deadline"])
        line(duration_s=clip.duration_s)
        for frame in clip.frames:
            height, width = frame.image_HWC.shape[:2]
            line(time_s=frame.time_s, height=height, width=width)
            say.write(frame.image_HWC.data)
            say.flush()
        line(end=True)
    except BadVideo as error:
        line(error=type(error).__name__, message=str(error))
    except MemoryError:
        line(error=VideoTooLarge.__name__, message="the clip needs too much memory to be decoded")
    say.flush()


def _bound(memory: int, seconds: float) -> None:  # pragma: no cover - as for child
    """Lets this process take so much more memory and time, and write no file, nor its own remains."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if math.isfinite(seconds):
        limits[resource.RLIMIT_CPU] = max(1, math.ceil(seconds)) + SPARE_S
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
