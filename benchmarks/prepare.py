"""Time and peak memory of ``jobs.prepare`` for several numbers of images, and the slope between the first and the last.

The images are generated: 32 x 32 pixel JPEGs of noise, in a temporary folder. Peak memory is the high-water mark of
resident memory (VmHWM in /proc, so on Linux only) of the driver and of its largest Ray worker.

  python -m benchmarks.prepare --images 2200 100000

The last line on stdout is one JSON object.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.machine import describe

PROPORTIONS = {"train": 5 / 7, "valid": 1 / 7, "test": 1 / 7}
POLL_S = 0.5
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: ``driver`` and ``worker`` are the peak resident bytes of the job and of its largest worker."""

    images: int
    seconds: float
    driver: int
    worker: int


def generate(folder: Path, count: int) -> None:
    """Writes ``count`` different images as a {train,valid,test}/{real,fake} tree."""
    draw = np.random.default_rng(0)
    for number in tqdm(range(count), desc=f"generating {count:,}", unit=" images"):
        split = list(PROPORTIONS)[np.searchsorted(np.cumsum(list(PROPORTIONS.values())), (number + 0.5) / count)]
        target = folder / split / ("real", "fake")[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=85)
        (target / f"{number:07}.jpg").write_bytes(buffer.getvalue())


def measure(source: Path, dataset: Path, count: int) -> Measured:
    """Prepares a folder in a separate process and watches its memory."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "jobs.prepare", str(source), "--out", str(dataset)]
    driver = worker = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as job:
        while job.poll() is None:
            driver = max(driver, _peak(job.pid))
            workers = (pid for pid in _descendants(job.pid) if _command(pid).startswith("ray::"))
            worker = max([worker, *(_peak(pid) for pid in workers)])
            time.sleep(POLL_S)
        assert job.stdout is not None
        output = job.stdout.read().decode()
    if job.returncode or json.loads(output.splitlines()[-1])["images"] != count:
        sys.exit(f"jobs.prepare failed with {job.returncode}: {output}")
    return Measured(images=count, seconds=time.perf_counter() - start, driver=driver, worker=worker)


def _read(path: str) -> str:
    """A file of /proc; empty when its process has ended."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _peak(pid: int) -> int:
    """The high-water mark of a process's resident memory, bytes."""
    lines = [line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline")


def _descendants(pid: int) -> list[int]:
    """The processes below a process, from the parents that /proc knows."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(f"/proc/{entry.name}/stat")):
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]


def main() -> None:
    """Generates, measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2200, 100_000], metavar="N")
    counts = parser.parse_args().images
    print(describe())
    runs = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="prepare-") as scratch:
            generate(Path(scratch) / "images", count)
            runs.append(measure(Path(scratch) / "images", Path(scratch) / "dataset", count))
    print(f"{'images':>10} {'seconds':>8} {'images/s':>11} {'driver MiB':>11} {'worker MiB':>11}")
    for run in runs:
        rate = run.images / run.seconds
        print(f"{run.images:10,} {run.seconds:8.1f} {rate:11.0f} {run.driver / MIB:11.0f} {run.worker / MIB:11.0f}")
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        more = (last.images - first.images) or 1
        print(
            f"slope: driver {(last.driver - first.driver) / more:,.0f} bytes an image, "
            f"worker {(last.worker - first.worker) / more:,.0f} bytes an image"
        )
    print(json.dumps({"runs": [asdict(run) for run in runs]}))


if __name__ == "__main__":
    main()
