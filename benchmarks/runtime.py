"""Throughput of the bare runtime in process: torch and each OpenVINO precision, by batch size.

A variant's initial weights and images of noise, on the engines that serving uses: uint8 squares in, logits out. Rows
named "fixed" are compiled for one batch size, the others accept any. "First pass" is the first one with a batch size
that is new to the engine, which delays a request. The rows run in turns; the median over the rounds counts. With one
thread, 1000 / (images/s) is what an image takes of a core, in milliseconds.

  python -m benchmarks.runtime
  python -m benchmarks.runtime --variant lite-ensemble --threads 1 --rounds 10

The last line on stdout is one JSON object: images_per_s, first_s.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from detector_core.networks import factory
from detector_core.networks.openvino_graphs import cpu_has_bf16, import_openvino
from detector_core.networks.variants import spec_for
from detector_core.registry import openvino_export
from detector_core.registry.engines import FILE_NAMES, Engine, OpenVinoEngine, TorchEngine

BATCHES = (1, 8, 16)
CALIBRATED_ON = 8
FIXED = "bf16"


def main() -> None:
    """Exports, measures in turns and prints the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="resnet68", metavar="VARIANT", help="[%(default)s]")
    parser.add_argument("--image-size", type=int, metavar="S", help="[that of the variant]")
    parser.add_argument("--threads", type=int, default=2, metavar="T")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="the median of these counts [5]")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    spec = spec_for(given.variant, {"preprocess.image_size": given.image_size} if given.image_size else None)
    network = factory.build(spec.model).eval()
    size = spec.preprocess.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size, size, 3), dtype=np.uint8)
    print(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        fp32 = openvino_export.export(network, spec.preprocess, Path(scratch))
        int8 = openvino_export.quantize(fp32, pixels[:CALIBRATED_ON])
        engines: dict[str, dict[int, Engine]] = {
            "torch eager fp32": dict.fromkeys(BATCHES, TorchEngine(network, spec.preprocess)),
            "OpenVINO fp32": dict.fromkeys(BATCHES, OpenVinoEngine(fp32, "fp32", given.threads)),
            "OpenVINO int8": dict.fromkeys(BATCHES, OpenVinoEngine(int8, "int8", given.threads)),
        }
        if cpu_has_bf16():
            engines["OpenVINO bf16"] = dict.fromkeys(BATCHES, OpenVinoEngine(fp32, "bf16", given.threads))
            engines[f"OpenVINO {FIXED}, fixed"] = {
                batch: OpenVinoEngine(_fixed(fp32, batch), FIXED, given.threads) for batch in BATCHES
            }
        else:
            print("this CPU has no bf16: the rows of bf16 are left out, and int8 computes its other layers in fp32")
    first = {name: {batch: _seconds(row[batch], pixels[:batch]) for batch in BATCHES} for name, row in engines.items()}
    seconds: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in engines}
    for _ in range(given.rounds):
        for name, row in engines.items():
            for batch in BATCHES:
                seconds[name][batch].append(_seconds(row[batch], pixels[:batch]))
    print(f"{given.variant} at {size} px, {given.threads} threads, images/s (ms of the first pass)")
    print(f"{'':22}" + "".join(f"{'batch ' + str(batch):>18}" for batch in BATCHES))
    speeds = {
        name: {batch: batch / statistics.median(values) for batch, values in row.items()}
        for name, row in seconds.items()
    }
    for name, by_batch in speeds.items():
        cells = (f"{images_per_s:.1f} ({1000 * first[name][batch]:.0f})" for batch, images_per_s in by_batch.items())
        print(f"{name:22}" + "".join(f"{cell:>18}" for cell in cells))
    print(json.dumps({"images_per_s": speeds, "first_s": first}))


def _fixed(xml: Path, batch: int) -> Path:
    """The same file for one batch size."""
    ov = import_openvino()
    model = ov.Core().read_model(str(xml))
    model.reshape([batch, *(dimension.get_length() for dimension in list(model.input().partial_shape)[1:])])
    file = xml.with_name(f"{batch}-{FILE_NAMES[FIXED]}")
    ov.save_model(model, str(file), compress_to_fp16=False)
    return file


def _seconds(engine: Engine, pixels: np.ndarray) -> float:
    started = time.perf_counter()
    engine(pixels)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
