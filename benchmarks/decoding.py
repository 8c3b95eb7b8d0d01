"""What it costs to decode an image in a child process instead of a thread: ``python -m benchmarks.decoding``.

Both decode the same JPEG, alternately, in one thread. The child is warm, as in the service.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.machine import describe
from detector_core.images.decode import decode_file
from detector_core.images.decoder import CHILDREN, opened_in_child

SIDES = (256, 512, 1024, 4000)
COARSE = 8
"""The image is random at this fraction of its resolution, so that its file has the size of a photo's."""


def jpeg(side: int) -> bytes:
    """A square JPEG of quality 90."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // COARSE, side // COARSE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def in_child(data: bytes) -> None:
    """Decodes as the service does."""
    with opened_in_child(data) as image:
        image.decode()


def milliseconds(work: Callable[[bytes], object], data: bytes) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work(data)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="images of each size; a tenth of it for the largest")
    arguments = parser.parse_args()
    print(describe(), flush=True)
    CHILDREN.warm_up()
    print(f"\n{'JPEG':>14}{'file':>10}{'thread':>12}{'child':>12}{'more':>10}")
    more = {}
    for side in SIDES:
        data = jpeg(side)
        rounds = arguments.rounds if side < SIDES[-1] else max(3, arguments.rounds // 10)
        pairs = [(milliseconds(decode_file, data), milliseconds(in_child, data)) for _ in range(rounds)]
        thread, child = (statistics.median(column) for column in zip(*pairs, strict=True))
        more[side] = round(child - thread, 2)
        size = f"{side} x {side}"
        print(f"{size:>14}{len(data) / 1e3:>7.0f} KB{thread:>9.2f} ms{child:>9.2f} ms{more[side]:>7.2f} ms", flush=True)
    print(json.dumps({"more_ms": more}))


if __name__ == "__main__":
    main()
