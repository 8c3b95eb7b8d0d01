"""Decodes clips in a child process whose memory and time are limited by the kernel.

A file of two kilobytes may declare an index of a hundred million samples, for which FFmpeg allocates gigabytes before
the first frame, and video decoders crash now and then. In a child process neither harms the caller, and the child
cannot write files. Errors are the same as those of :mod:`detector_core.images.video`. The limits are those of Linux; on
other systems the clip is decoded in a child without limits.
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

MAX_DECODER_FRAMES: Final = 20
"""Frames of the largest size that the memory limit allows for: those a decoder keeps and the one being converted."""
GRACE_S: Final = 5
"""Seconds of CPU time after the deadline before the kernel ends the child, which should end by itself earlier."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from detector_core.images import sandbox; sandbox.child()"
)


def memory_limit(data: bytes) -> int:
    """Bytes of memory that the child may use for a clip, in addition to its own code."""
    packets = max(video.MAX_UNPACKED_RATIO * len(data), video.MIN_UNPACKED_BYTES)
    return 2 * MAX_DECODER_FRAMES * video.MAX_PIXELS + len(data) + packets


@contextmanager
def sample_frames(data: bytes, count: int, *, max_s: float, deadline: float = math.inf) -> Iterator[Clip]:
    """:func:`detector_core.images.video.sample_frames` in a child process that ends with the ``with`` block.

    Raises:
        BadVideo, VideoTooLarge: as there, also while ``frames`` is iterated; VideoTooLarge also if decoding needs too
            much memory, BadVideo also if the child crashes.
    """
    task = {"count": count, "max_s": max_s, "deadline": deadline, "memory": memory_limit(data)}
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            with suppress(BrokenPipeError):  # the child has ended; _read_message raises the reason
                process.stdin.write(data)
            with suppress(BrokenPipeError):
                process.stdin.close()
            yield Clip(duration_s=_read_message(process.stdout)["duration_s"], frames=_read_frames(process.stdout))
        finally:
            process.kill()


def _read_message(pipe: Any) -> dict[str, Any]:
    """The next message of the child, one line of JSON. If it reports an error, that error is raised."""
    line = pipe.readline()
    if not line:
        raise BadVideo("the clip cannot be read: decoding it failed")
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise getattr(errors, message["error"])(message["message"])
    return message


def _read_frames(pipe: Any) -> Iterator[Frame]:
    while "end" not in (message := _read_message(pipe)):
        pixels = bytearray(message["height"] * message["width"] * 3)
        if pipe.readinto(pixels) != len(pixels):
            raise BadVideo("the clip cannot be read: decoding it failed")
        image_HWC = np.frombuffer(pixels, np.uint8).reshape(message["height"], message["width"], 3)
        yield Frame(moments_s=tuple(message["moments_s"]), image_HWC=image_HWC, warnings=tuple(message["warnings"]))


def child() -> None:  # pragma: no cover - runs in a child process that cannot write a coverage file
    """The child's main function: reads a clip from stdin, writes lines of JSON and raw pixels to stdout."""
    task = json.loads(sys.argv[2])
    stdout = sys.stdout.buffer

    def send(**message: object) -> None:
        stdout.write(json.dumps(message).encode() + b"\n")

    try:
        _limit_resources(task["memory"], task["deadline"] - time.monotonic())
        data = sys.stdin.buffer.read()
        clip = video.sample_frames(data, task["count"], max_s=task["max_s"], deadline=task["deadline"])
        send(duration_s=clip.duration_s)
        for frame in clip.frames:
            height, width = frame.image_HWC.shape[:2]
            send(moments_s=frame.moments_s, warnings=frame.warnings, height=height, width=width)
            stdout.write(frame.image_HWC.data)
            stdout.flush()
        send(end=True)
    except BadVideo as error:
        send(error=type(error).__name__, message=str(error))
    except MemoryError:
        send(error=VideoTooLarge.__name__, message="decoding the clip needs too much memory")
    stdout.flush()


def _limit_resources(memory: int, seconds: float) -> None:  # pragma: no cover - as for child
    """Limits this process to ``memory`` more bytes and ``seconds`` of CPU time, and forbids files and core dumps."""
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
        limits[resource.RLIMIT_CPU] = max(1, math.ceil(seconds)) + GRACE_S
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, limit))
