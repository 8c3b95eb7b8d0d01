"""The two pipelines of ``jobs.predict --out`` on the same files: tasks that do everything, and Ray Data.

  python -m benchmarks.bulk --images FOLDER --files 600

Both score the files of FOLDER (painted portraits without it) with the starter model on one private Ray, in turns, after
one uncounted round. CPU time is that of all processes of Ray, sampled while they run: compare that where the machine
does other things, too. With --faces on, decoding includes the search for faces.

The last line on stdout is one JSON object: for each pipeline the median images_per_s and cpu_ms_per_image.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import describe
from detector_core.data import demo
from detector_core.registry import starter, versions
from jobs.common.cluster import connect
from jobs.scoring.pipelines import PIPELINES, chunk_size
from jobs.scoring.rows import Task

SAMPLE_S = 0.2


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, searched at any depth [painted portraits]")
    parser.add_argument("--files", type=int, default=600, metavar="N", help="how many files [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="number of rounds [%(default)s]")
    parser.add_argument("--faces", choices=("on", "off"), default="on", help="whether to search faces [%(default)s]")
    arguments = parser.parse_args()
    print(describe(), flush=True)
    location = versions.live_location(starter.private_models(print))
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        counts = {"train": 1, "valid": 1, "test": arguments.files // 2}
        folder = arguments.images or demo.generate(Path(scratch) / "images", size=256, counts=counts)
        paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))[: arguments.files]
        task = Task(version=location, device="cpu", faces=arguments.faces, root=str(folder.absolute()))
        with connect():
            results = measure(task, paths, arguments.rounds)
    for name, result in results.items():
        rate, cpu = result["images_per_s"], result["cpu_ms_per_image"]
        print(f"{name:>6}: {rate:6.1f} images/s, {cpu:6.1f} ms of CPU time per image")
    print(json.dumps(results))


def measure(task: Task, paths: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds; the first round, in which processes start, is left out."""
    size = chunk_size(len(paths))
    chunks = [[(path, path) for path in paths[start : start + size]] for start in range(0, len(paths), size)]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in PIPELINES}
    for _ in range(rounds + 1):
        for name, score in PIPELINES.items():
            with cpu_meter() as cpu_s:
                started = time.perf_counter()
                scored = sum(len(frame) for frame in score(task, iter(chunks)))
                measured[name].append((time.perf_counter() - started, cpu_s()))
            assert scored == len(paths)
    return {
        name: {
            "images_per_s": len(paths) / statistics.median(wall for wall, _ in counted[1:]),
            "cpu_ms_per_image": 1000 * statistics.median(cpu for _, cpu in counted[1:]) / len(paths),
        }
        for name, counted in measured.items()
    }


@contextmanager
def cpu_meter() -> Iterator[Callable[[], float]]:
    """Gives the CPU time so far of this process and all its descendants, also those that have ended, in seconds."""
    before, seen, ended = ticks(), {}, threading.Event()

    def sample() -> None:
        seen.update(ticks())

    def used() -> float:
        sample()
        return sum(count - before.get(process, 0) for process, count in seen.items()) / os.sysconf("SC_CLK_TCK")

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        ended.set()
        thread.join()


def ticks() -> dict[int, int]:
    """Clock ticks that this process and each of its descendants has used, by process id."""
    used, todo = {}, [os.getpid()]
    while todo:
        process = Path("/proc", str(pid := todo.pop()))
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            todo += [int(child) for file in process.glob("task/*/children") for child in file.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        used[pid] = int(fields[11]) + int(fields[12])
    return used


if __name__ == "__main__":
    main()
