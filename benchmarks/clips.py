"""CPU time of decoding ordinary clips, in the service's child process: python -m benchmarks.clips [--seconds 60]

The clips are made here: textures that move, with the noise of a sensor, at the bit rates of phones. Encoding them takes
some minutes. Exit code 1 if the service would refuse one of them.
"""

import argparse
import io
import sys
import time
from typing import Any, NamedTuple, NoReturn

import av
import numpy as np

from benchmarks.machine import describe
from detector_core.errors import BadVideo
from detector_core.images import sandbox
from detector_core.images.budget import CpuBudget
from serve_app.settings import Limits


class Kind(NamedTuple):
    """A row: codec, width and height, frames a second, key frames in seconds, mean Mbit/s."""

    name: str
    codec: str
    size: tuple[int, int]
    fps: int
    key_s: float
    mbits: float


KINDS = (
    Kind("phone, H.264", "libx264", (1920, 1080), 30, 1, 6.5),
    Kind("phone, HEVC", "libx265", (1920, 1080), 30, 1, 6.5),
    Kind("edited, H.264", "libx264", (1920, 1080), 30, 8.3, 6.5),
    Kind("screen, H.264", "libx264", (1920, 1080), 60, 4.2, 4),
)


def make(kind: Kind, seconds: int) -> bytes:
    """A clip of smooth shapes that move, with noise that changes from frame to frame."""
    width, height = kind.size
    draw, buffer = np.random.default_rng(0), io.BytesIO()
    y, x = np.mgrid[:height, : 2 * width].astype(np.float32)
    shapes = 120 + 50 * np.sin(x / 41) * np.cos(y / 67) + 40 * np.sin((x + y) / 23)
    noises = draw.integers(-5, 6, (4, height, width))
    with av.open(buffer, "w", format="mp4") as output:
        options = {"preset": "superfast", "bf": "2", "x265-params": "log-level=none"}
        stream: Any = output.add_stream(kind.codec, rate=kind.fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt, stream.gop_size = "yuv420p", round(kind.fps * kind.key_s)
        stream.bit_rate = round(kind.mbits * 1e6)
        for number in range(seconds * kind.fps):
            left = 3 * number % width
            pixels = shapes[:, left : left + width] + noises[number % 4]
            gray_HWC = np.repeat(pixels.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(gray_HWC, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clips", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60], help="lengths of the clips (10 60)")
    arguments = parser.parse_args()
    limits, refused = Limits(), 0
    print(describe())
    print(f"{'clip':18}{'s':>4}{'MB':>7}{'CPU s':>8}{'s':>7}", flush=True)
    for kind in KINDS:
        for seconds in arguments.seconds:
            data, budget = make(kind, seconds), CpuBudget(limits.video_cpu_s)
            started, problem = time.monotonic(), ""
            try:
                with sandbox.sample_frames(data, limits.frames, max_s=limits.max_video_s, budget=budget) as clip:
                    assert list(clip.frames)
            except BadVideo as error:
                problem = f"  refused: {error}"
                refused += 1
            took_s = time.monotonic() - started
            print(
                f"{kind.name:18}{seconds:4}{len(data) / 1e6:7.1f}{budget.used:8.2f}{took_s:7.2f}{problem}", flush=True
            )
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
