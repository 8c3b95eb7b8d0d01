"""Decodes clips in a child process whose memory and CPU time are limited (:mod:`detector_core.images.child`).

A file of two kilobytes may declare an index of a hundred million samples, for which FFmpeg allocates gigabytes before
the first frame. Errors are those of :mod:`detector_core.images.video`. Images have warm children
(:mod:`detector_core.images.decoder`); a clip, which takes seconds anyway, has its own.
"""

import json
import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from detector_core.errors import BadVideo, VideoTooCostly
from detector_core.images import child as children
from detector_core.images import video, video_decoder
from detector_core.images.budget import CpuBudget, OverBudget
from detector_core.images.child import Cancellation, Child, Crashed, MemoryLimit, message
from detector_core.images.video import Clip
from detector_core.images.video_decoder import Frame

MAX_DECODER_FRAMES: Final = 20
"""Frames of the largest size that the memory limit allows for: those a decoder keeps and the one being converted."""
NICENESS: Final = 10
"""How far a child gives way to other processes, so that images do not wait for clips."""


def memory_limit(data: bytes) -> int:
    """Bytes of memory that the child may use for a clip, in addition to its own code."""
    packets = max(video.MAX_UNPACKED_RATIO * len(data), video.MIN_UNPACKED_BYTES)
    return 2 * MAX_DECODER_FRAMES * video_decoder.MAX_PIXELS + len(data) + packets


@contextmanager
def sample_frames(
    data: bytes,
    count: int,
    *,
    max_s: float,
    deadline: float = math.inf,
    budget: CpuBudget | None = None,
    cancellation: Cancellation | None = None,
) -> Iterator[Clip]:
    """:func:`detector_core.images.video.sample_frames` in a child process that ends with the ``with`` block.

    Args:
        budget: CPU time that this and other work may take together; the clip may take all that is left.
        cancellation: ends the child.

    Raises:
        BadVideo, VideoTooLarge: as there, also while ``frames`` is iterated; VideoTooCostly if decoding needs too much
            memory or CPU time, BadVideo also if the child crashes.
        Cancelled: ``cancellation`` was cancelled.
    """
    cancellation, budget = cancellation or Cancellation(), budget or CpuBudget()
    try:
        with budget.grant(budget.seconds) as grant:
            task = {"count": count, "max_s": max_s, "deadline": deadline, "memory": memory_limit(data)}
            child = Child(__name__, json.dumps({**task, "cpu_s": grant.seconds}))
            try:
                with cancellation.on_cancel(child.kill):
                    child.write(data, end=True)
                    frames = _frames(child, budget, cancellation)
                    yield Clip(duration_s=_read(child)["duration_s"], frames=frames)
            finally:
                child.stop()
                grant.used = min(grant.seconds, child.cpu_s)
    except (OverBudget, Crashed) as error:
        raise _translated(error, budget, cancellation) from None


def _translated(error: OverBudget | Crashed, budget: CpuBudget, cancellation: Cancellation) -> BadVideo:
    """The error of a clip whose child has ended. Raises Cancelled if it was ended on purpose."""
    cancellation.check()
    if isinstance(error, OverBudget):
        return VideoTooCostly(f"decoding the clip took more than {budget.seconds:g} s of CPU time")
    return BadVideo(f"the clip cannot be read: decoding it failed ({error})")


def _read(child: Child) -> dict[str, Any]:
    fields = child.read()
    children.raise_reported(fields)
    return fields


def _frames(child: Child, budget: CpuBudget, cancellation: Cancellation) -> Iterator[Frame]:
    try:
        yield from _read_frames(child)
    except (OverBudget, Crashed) as error:
        raise _translated(error, budget, cancellation) from None


def _read_frames(child: Child) -> Iterator[Frame]:
    while "end" not in (fields := _read(child)):
        if fields["height"] * fields["width"] > video_decoder.MAX_PIXELS:
            raise Crashed("it returned too many pixels")
        image_HWC = np.empty((fields["height"], fields["width"], 3), np.uint8)
        child.read_into(image_HWC)
        yield Frame(moments_s=tuple(fields["moments_s"]), image_HWC=image_HWC, warnings=tuple(fields["warnings"]))


def child() -> None:  # pragma: no cover - runs in a child process, which cannot write a coverage file
    """The child's main function: reads a clip from stdin, writes messages and pixels to stdout."""
    task, stdout = json.loads(sys.argv[2]), sys.stdout.buffer
    fields: dict[str, object] = {"end": True}
    try:
        os.nice(NICENESS)
        MemoryLimit().allow(task["memory"])
        children.limit_cpu(task["cpu_s"])
        clip = video.sample_frames(
            sys.stdin.buffer.read(), task["count"], max_s=task["max_s"], deadline=task["deadline"]
        )
        stdout.write(message(duration_s=clip.duration_s))
        for frame in clip.frames:
            height, width = frame.image_HWC.shape[:2]
            stdout.write(message(moments_s=frame.moments_s, warnings=frame.warnings, height=height, width=width))
            stdout.write(frame.image_HWC.data)
            stdout.flush()
    except BadVideo as error:
        fields = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        fields = {"error": VideoTooCostly.__name__, "message": "decoding the clip needs too much memory"}
    except Exception:
        fields = {"bug": traceback.format_exc()}
    stdout.write(message(**fields))
    stdout.flush()
