"""What scoring adds to the bare forward passes: reading, decoding, resizing, and collecting the scores.

All rows run the same network over the same images in batches of the same size, in turns in one process, with one
thread for the network, as in a scoring worker; the median over the rounds counts. The bare forward passes have their
inputs in memory. The robustness grid is compared with as many of them as it makes, 1 + its number of changes; OpenVINO
computes them, so it can take less time than torch's.

  python -m benchmarks.evaluate
  python -m benchmarks.evaluate --image-size 224 --images 256

The last line on stdout is one JSON object: seconds, passes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.machine import describe
from detector_core import storage
from detector_core.data import demo
from detector_core.evaluation.robustness import CHANGES, score_grid
from detector_core.evaluation.scoring import score
from detector_core.images.preprocess import decode, to_input
from detector_core.networks import factory
from detector_core.networks.variants import spec_for

STORED_SIZE, BATCH = 256, 64


def main() -> None:
    """Generates the images, measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128, metavar="N", help="number of images [128]")
    parser.add_argument("--image-size", type=int, default=128, metavar="S", help="side of the input, pixels [128]")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="number of rounds [5]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = spec_for("resnet68", {"preprocess.image_size": arguments.image_size})
    network = factory.build(spec.model).eval().to(memory_format=torch.channels_last)
    print(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        counts = {"train": 1, "valid": 1, "test": arguments.images // 2}
        folder = demo.generate(Path(scratch) / "images", seed=0, size=STORED_SIZE, counts=counts)
        paths = sorted(path for path in folder.rglob("*.jpg") if "test" in path.parts)
        names = [path.relative_to(folder).as_posix() for path in paths]
        rows, root = pd.DataFrame({"path": names, "label": [path.parent.name for path in paths]}), str(folder)
        inputs = [to_input(decode(storage.read_bytes(path)), spec.preprocess) for path in paths]

        def bare() -> None:
            with torch.inference_mode():
                for first in range(0, len(inputs), BATCH):
                    network(torch.stack(inputs[first : first + BATCH]).contiguous(memory_format=torch.channels_last))

        works: dict[str, Callable[[], object]] = {
            "bare forward passes": bare,
            "scoring": lambda: score(network, rows, root, spec.preprocess, batch_size=BATCH),
            "robustness grid": lambda: score_grid(network, rows, root, spec.preprocess, batch_size=BATCH),
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        bare()
        for _ in tqdm(range(arguments.rounds), unit="round"):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    passes = {"bare forward passes": 1, "scoring": 1, "robustness grid": 1 + len(CHANGES)}
    print(f"resnet68, {len(rows)} images of {STORED_SIZE} px read at {arguments.image_size} px, one thread, fp32")
    print(f"{'':20} {'seconds':>8} {'spread':>13} {'passes':>7}  compared with the bare passes")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f}-{max(seconds[name]):.2f}"
        more = median / (passes[name] * medians["bare forward passes"]) - 1
        print(f"{name:20} {median:8.2f} {spread:>13} {passes[name]:7}  {more:+.1%}")
    print(json.dumps({"seconds": medians, "passes": passes}))


if __name__ == "__main__":
    main()
