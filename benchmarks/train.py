"""Throughput of training a variant, compared with the loops that a user would write without this project.

Every row uses the same images, network, batch and number of threads. The rows run in turns, and the median over the
rounds counts. Each row trains two epochs in a separate process and reports the second, without validation.

  plain loop      torchvision's ImageFolder, DataLoader and transforms, fp32, Adam: none of our code except the network
  timm loop       timm's dataset, loader, transforms and optimizer, channels last, autocast as in our rows: the parts
                  of its training script (the script itself is not in timm's package)
  fit()           detector_core.training.loop.fit in one process, without Ray
  job, 1 worker   python -m jobs.train with one worker that has all the cores
  job, 2 workers  the same with two workers that share them
  input pipeline  decoding, resizing and augmenting alone, one core, ours (with cut-out) and torchvision's

Each ratio names the row that it compares with. TFLOP/s count the network's forward and backward pass (three times the
forward pass); --peak-tflops, the published peak of your device and compute dtype, adds the utilization.

  python -m benchmarks.train
  python -m benchmarks.train --profile
  python -m benchmarks.train --variant lite0 --image-size 256 --compute-dtype bf16 --only "fit()"
  python -m benchmarks.train --gpu --image-size 224 --batch-size 256 --images 8192 --peak-tflops 989

The last line on stdout is one JSON object: images_per_s, flops_per_image.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.loops import EPOCHS, Work, plain_loop, timm_loop, torchvision_pipeline
from benchmarks.machine import describe
from detector_core.config import RunSpec
from detector_core.data import demo, manifest
from detector_core.data.loading import ImageDataset
from detector_core.networks import factory
from detector_core.networks.variants import spec_for
from detector_core.training.loop import EpochReport, fit
from detector_core.training.optimizer import resolve_compute_dtype
from detector_core.training.step import TrainState

STORED_SIZE = 256


def without_ray(work: Work) -> float:
    """``fit()`` without Ray."""
    torch.set_num_threads(work.threads)
    data = manifest.load(str(work.dataset))
    state = TrainState(work.spec, data.fingerprint, "cuda" if work.gpu else "cpu")
    reports = [r for r in fit(state, data, processes=work.processes) if isinstance(r, EpochReport)]
    return reports[-1].images_per_s


def job(work: Work, workers: int) -> float:
    """``python -m jobs.train``, with Ray."""
    with tempfile.TemporaryDirectory(prefix="train-") as scratch:
        spec_file = Path(scratch) / "spec.json"
        spec_file.write_text(json.dumps(work.spec.to_dict()))
        command = [
            sys.executable,
            "-m",
            "jobs.train",
            work.spec.variant,
            "--spec",
            str(spec_file),
            "--data",
            str(work.dataset),
        ]
        command += ["--storage", scratch, "--name", "run", "--workers", str(workers), "--checkpoint-every", "0"]
        command += ["--processes", str(work.processes), "--cpus", str(work.threads // workers)]
        command += ["--gpu"] if work.gpu else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return float(pd.read_csv(Path(scratch) / "run" / "metrics.csv")["images_per_s"].iloc[-1])


def our_pipeline(work: Work) -> float:
    """Images per second that one core decodes, resizes and augments."""
    data, spec = manifest.load(str(work.dataset)), work.spec
    images = ImageDataset(data.split("train"), data.root, spec.preprocess, spec.augment, spec.seed)
    started = time.perf_counter()
    for row in range(len(images)):
        images[(0, row)]
    return len(images) / (time.perf_counter() - started)


# row: (what measures it, the row its ratio is taken against)
ROWS: dict[str, tuple[Callable[[Work], float], str | None]] = {
    "plain loop": (plain_loop, None),
    "timm loop": (timm_loop, "plain loop"),
    "fit()": (without_ray, "plain loop"),
    "job, 1 worker": (lambda work: job(work, 1), "fit()"),
    "job, 2 workers": (lambda work: job(work, 2), "job, 1 worker"),
    "torchvision input": (torchvision_pipeline, None),
    "our input": (our_pipeline, "torchvision input"),
}
TRAINING = tuple(ROWS)[:5]
PROFILED = 10


def profile(work: Work, name: str) -> None:
    """Prints the torch operators that take most of a row's time, with their proportion of it."""
    torch.set_num_threads(work.threads)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        ROWS[name][0](work)
        wall = time.perf_counter() - started
    spent = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)[:PROFILED]
    print(f"{name}, {EPOCHS} epochs in {wall:.1f} s")
    for event in spent:
        print(f"  {event.key:48} {event.self_cpu_time_total / 1e6 / wall:6.1%} {event.count:7,} calls")


def measure(name: str, work: Work) -> float:
    """Measures a row once, in a separate process (a job starts its own processes)."""
    if name.startswith("job"):
        return ROWS[name][0](work)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(ROWS[name][0], work).result()


def training_flops(spec: RunSpec) -> float:
    """Floating-point operations per image, forward and backward."""
    size = spec.preprocess.image_size
    network = factory.build(spec.model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return 3.0 * float(counter.get_total_flops())


def main() -> None:
    """Generates the images, measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="resnet68-cutout", metavar="VARIANT", help="[%(default)s]")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="training images [256]")
    parser.add_argument("--image-size", type=int, default=64, metavar="S")
    parser.add_argument("--batch-size", type=int, default=32, metavar="B")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="number of rounds [3]")
    parser.add_argument("--compute-dtype", default="auto", help="of our rows: auto, fp32 or bf16 [auto]")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="rows [all]")
    parser.add_argument(
        "--profile", action="store_true", help="print the most expensive operators of the plain loop and fit() instead"
    )
    parser.add_argument("--peak-tflops", type=float, metavar="T", help="published peak, to show utilization")
    arguments = parser.parse_args()
    spec = spec_for(
        arguments.variant,
        {
            "preprocess.image_size": arguments.image_size,
            "optim.epochs": EPOCHS,
            "optim.batch_size": arguments.batch_size,
            "optim.micro_batch": arguments.batch_size,
            "optim.compute_dtype": arguments.compute_dtype,
        },
    )
    cores = os.cpu_count() or 1
    device = torch.device("cuda" if arguments.gpu else "cpu")
    compute_dtype = resolve_compute_dtype(spec.optim, factory.build(spec.model), device)
    print(describe())
    print(
        f"{spec.variant}, {arguments.images} images of {STORED_SIZE} px read at {arguments.image_size} px, batch "
        f"{arguments.batch_size}, {cores} threads in total, {device.type}, our rows in {compute_dtype}"
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        work = _work(Path(scratch), spec, arguments.images, cores=cores, gpu=arguments.gpu)
        if arguments.profile:
            for name in ("plain loop", "fit()"):
                profile(work, name)
            return
        speeds: dict[str, list[float]] = {name: [] for name in arguments.only}
        with tqdm(total=arguments.rounds * len(speeds), unit="run") as bar:
            for _ in range(arguments.rounds):
                for name in speeds:
                    bar.set_description(name)
                    speeds[name].append(measure(name, work))
                    bar.update()
    report(speeds, training_flops(spec), arguments.peak_tflops)


def _work(scratch: Path, spec: RunSpec, count: int, *, cores: int, gpu: bool) -> Work:
    counts = {"train": count // 2, "valid": 8, "test": 8}
    generated = demo.generate(scratch / "images", seed=0, size=STORED_SIZE, counts=counts)
    dataset = scratch / "dataset"
    command = [sys.executable, "-m", "jobs.prepare", str(generated), "--out", str(dataset)]
    subprocess.run(command, check=True, capture_output=True)
    (train,) = generated.glob("**/train")
    return Work(
        images=train.parent, dataset=dataset, spec=spec, threads=cores, processes=cores - 1 if gpu else 0, gpu=gpu
    )


def report(speeds: dict[str, list[float]], flops: float, peak_tflops: float | None) -> None:
    """Prints the table, then the medians as JSON."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{'':18} {'images/s':>9} {'spread':>15} {'TFLOP/s':>8}  ratio")
    for name, median in medians.items():
        spread = f"{min(speeds[name]):.1f}-{max(speeds[name]):.1f}"
        tflops = median * flops / 1e12
        shown = f"{tflops:8.3f}" if name in TRAINING else f"{'':8}"
        peer = ROWS[name][1]
        ratio = f"{median / medians[peer]:.2f} x {peer}" if peer in medians else ""
        if peak_tflops and name in TRAINING:
            ratio += f"  {tflops / peak_tflops:.1%} of peak"
        print(f"{name:18} {median:9.1f} {spread:>15} {shown}  {ratio}")
    print(json.dumps({"images_per_s": medians, "flops_per_image": flops}))


if __name__ == "__main__":
    main()
