"""Clips made in memory: the grey level of a frame says which one it is."""

import io
from typing import Any

import av
import numpy as np

STEP = 5
"""Grey levels between two frames."""


def clip(
    frames: int = 25,
    *,
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    codec: str = "libx264",
    container: str = "mp4",
    gop: int = 6,
    **options: Any,
) -> bytes:
    """A clip of flat frames, each STEP brighter than the one before; size is (width, height)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options={name: str(value) for name, value in options.items()})
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), number * STEP % 256, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    """A clip without a picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()
