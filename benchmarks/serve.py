"""Throughput of the service, compared with the servers that one would write without it, and with the bare runtime.

Every row uses the same 256 px JPEGs, network (resnet68, one step from random weights), cores and closed-loop clients:
each connection sends its next request as soon as it has an answer. Face detection is off, as the peers have none.

  ours           python -m jobs.serve: Ray Serve, batches, the promoted runtime (int8 by default)
  together       the same with ``layout: together``: an ingress and a model in one process
  LitServe       the same network in torch, eager, fp32, batches of the same size (extra ``bench``)
  FastAPI        the same in one uvicorn process, one image at a time
  bare runtime   the runtime of ours, in process, on full batches of decoded squares: the upper limit

The rows run in turns; the median over the rounds counts.

  python -m benchmarks.serve
  python -m benchmarks.serve --precision bf16 --connections 1,32 --seconds 20

A second table shows where the time goes: the latency that a client sees, the part that the service measures itself, and
of that the stages of the pipeline.

The last line on stdout is one JSON object: bare, rows.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.machine import describe
from detector_core.data import demo
from detector_core.images.preprocess import decode, square
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from jobs.common.cli import say
from jobs.common.loopback import free_port, wait_until_ready

SIZE, STORED_SIZE, BATCH = 224, 256, 16
COUNTS = {"train": 16, "valid": 8, "test": 8}
START_S, STOP_S = 300, 90
SETTINGS = (
    f"max_batch_size: {BATCH}, max_queued: 512, http: {{max_open: 512}}, ingresses: {{max_replicas: 1}}, threads: 1, "
    f"detector_cpus: 0.45, detectors: {{min_replicas: 2, max_replicas: 2}}"
)
"""One detector with one thread per core: the threads of one pass would wait for each other and for other processes."""
OURS, TOGETHER, LITSERVE, FASTAPI = "ours", "together", "LitServe", "FastAPI"
LAYOUTS = {OURS: "apart", TOGETHER: "together"}


@dataclass
class Point:
    """Measurements with a number of connections: seconds of each answer, and the timings that the service reports."""

    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0
    images_per_s: float = 0.0

    def quantile(self, fraction: float) -> float | None:
        """A quantile of the latency in milliseconds; None if nothing was answered in time."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


@dataclass(frozen=True)
class Row:
    """Medians over the rounds, with a number of connections; milliseconds, None if nothing was answered."""

    images_per_s: float
    p50: float | None
    p99: float | None
    failed: int
    latency: float | None
    stages: dict[str, float]

    @classmethod
    def of(cls, points: list[Point]) -> "Row":
        """Combines the points of all rounds."""

        def quantile(fraction: float) -> float | None:
            values = [value for point in points if (value := point.quantile(fraction)) is not None]
            return statistics.median(values) if values else None

        seconds = [value for point in points for value in point.seconds]
        stages = {name for point in points for name in point.stages}
        return cls(
            images_per_s=statistics.median(point.images_per_s for point in points),
            p50=quantile(0.5),
            p99=quantile(0.99),
            failed=sum(point.failed for point in points),
            latency=1000 * statistics.mean(seconds) if seconds else None,
            stages={
                name: statistics.mean(v for point in points for v in point.stages.get(name, []))
                for name in ("service", "decode", "faces", "detect")
                if name in stages
            },
        )


def main() -> None:
    """Makes a model, measures every row and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="int8", choices=("int8", "bf16", "fp32"), help="of our rows [int8]")
    parser.add_argument("--connections", default="1,8,32,128", help="numbers of open connections [1,8,32,128]")
    parser.add_argument("--seconds", type=float, default=8, help="duration of each measurement, after a warm-up [8]")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="number of rounds [3]")
    parser.add_argument("--rows", default=f"{OURS},{TOGETHER},{LITSERVE},{FASTAPI}", help="rows [%(default)s]")
    arguments = parser.parse_args()
    connections = [int(part) for part in arguments.connections.split(",")]
    print(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        images = _make(folder, arguments.precision)
        live = versions.live(folder / "models")
        bare: list[dict[str, float]] = []
        points: dict[str, dict[int, list[Point]]] = {
            row: {count: [] for count in connections} for row in arguments.rows.split(",")
        }
        for number in range(arguments.rounds):
            bare.append(_bare(live, images))
            say(f"round {number + 1}/{arguments.rounds}, bare runtime: {bare[-1]['images_per_s']:.1f} images/s")
            for row, of_row in points.items():
                port = free_port()
                with _server(_command(row, folder, live, port), port):
                    for count, measured in of_row.items():
                        measured.append(asyncio.run(_load(port, images, count, arguments.seconds)))
                        say(f"  {row}, {count} connections: {measured[-1].images_per_s:.1f} images/s")
    rows = {row: {count: Row.of(rounds) for count, rounds in of_row.items()} for row, of_row in points.items()}
    medians = {name: statistics.median(measured[name] for measured in bare) for name in bare[0]}
    _print(arguments.precision, medians, rows)


def _print(precision: str, bare: dict[str, float], rows: dict[str, dict[int, Row]]) -> None:
    print(
        f"resnet68 at {SIZE} px, {STORED_SIZE} px JPEGs, batches up to {BATCH}; ours in {precision}, peers torch fp32"
    )
    print(f"bare runtime: {bare['images_per_s']:.1f} images/s in batches, {bare['ms']:.1f} ms for one image")
    print(f"{'connections':>11}  {'row':10} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8}  compared with")
    for count in next(iter(rows.values())):
        for name, of_row in rows.items():
            row = of_row[count]
            peers = {peer: rows[peer][count].images_per_s for peer in rows if name in LAYOUTS and peer not in LAYOUTS}
            ratios = [f"{row.images_per_s / speed:.2f} x {peer}" for peer, speed in peers.items() if speed]
            ratios += [f"{row.images_per_s / bare['images_per_s']:.0%} of the bare runtime"] if name in LAYOUTS else []
            ratios += [f"{row.failed} refused"] if row.failed else []
            waits = " ".join(f"{'none':>8}" if ms is None else f"{ms:8.1f}" for ms in (row.p50, row.p99))
            print(f"{count:11}  {name:10} {row.images_per_s:9.1f} {waits}  {', '.join(ratios)}")
    print("where the time goes, mean ms: latency of the client > time in the service > decode, faces, detect")
    ours = [(name, count, row) for name, of_row in rows.items() for count, row in of_row.items() if name in LAYOUTS]
    for name, count, row in ours:
        if row.latency is not None:
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in row.stages.items())
            print(f"{count:11}  {name:10} {row.latency:.1f} > {stages}")
    values = {name: {count: asdict(row) for count, row in of_row.items()} for name, of_row in rows.items()}
    print(json.dumps({"bare": bare, "rows": values}))


def _make(folder: Path, precision: str) -> list[bytes]:
    """Trains one step, evaluates and promotes, as a user would; returns the test images."""
    source = demo.generate(folder / "images", seed=0, size=STORED_SIZE, counts=COUNTS)
    batch = ["--batch-size", "16", "--micro-batch", "8", "--epochs", "1", "--image-size", str(SIZE)]
    where = ["--data", str(folder / "data")]
    run = str(folder / "runs" / "bench")
    steps = (
        ["prepare", str(source), "--out", str(folder / "data")],
        ["train", "resnet68-cutout", *where, "--storage", str(folder / "runs"), "--name", "bench", *batch],
        ["evaluate", run, *where],
        [
            "promote",
            str(folder / "runs" / "bench"),
            "--to",
            str(folder / "models"),
            "--precision",
            precision,
            "--force",
        ],
    )
    for step in steps:
        done = subprocess.run([sys.executable, "-m", f"jobs.{step[0]}", *step[1:]], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"jobs.{step[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    return [path.read_bytes() for path in sorted(source.rglob("*.jpg")) if "test" in path.parts]


def _bare(live: Path, images: list[bytes], rounds: int = 5) -> dict[str, float]:
    predictor = Predictor(live, batch_size=BATCH, threads=os.cpu_count() or 1)
    squares = [square(decode(data), predictor.info.preprocess) for data in images][:BATCH]
    seconds: dict[int, list[float]] = {1: [], len(squares): []}
    for count, spent in seconds.items():
        predictor.predict(squares[:count])
        for _ in range(rounds):
            started = time.perf_counter()
            predictor.predict(squares[:count])
            spent.append(time.perf_counter() - started)
    one, many = (statistics.median(spent) for spent in seconds.values())
    return {"images_per_s": len(squares) / many, "ms": 1000 * one}


async def _load(port: int, images: list[bytes], connections: int, seconds: float) -> Point:
    point, url = Point(), f"http://127.0.0.1:{port}/v1/detect"
    warm = min(5.0, seconds / 2)
    begin = time.perf_counter() + warm
    end = begin + seconds

    async def send_requests(session: aiohttp.ClientSession, number: int) -> None:
        while time.perf_counter() < end:
            data, started = images[number % len(images)], time.perf_counter()
            number += 1
            form = aiohttp.FormData()
            form.add_field("file", data, filename="a.jpg", content_type="image/jpeg")
            async with session.post(url, data=form) as response:
                body, status = await response.json(), response.status
            done = time.perf_counter()
            if not begin <= done <= end:
                continue
            if status != 200:
                point.failed += 1
                continue
            point.seconds.append(done - started)
            if "results" in body:
                timings = {"service": body["timing_ms"]["total"], **body["results"][0]["timing_ms"]}
                for name, value in timings.items():
                    point.stages.setdefault(name, []).append(value)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(send_requests(session, number) for number in range(connections)))
    point.images_per_s = len(point.seconds) / seconds
    return point


def _command(row: str, folder: Path, live: Path, port: int) -> list[str]:
    if row in LAYOUTS:
        (folder / "serve.yaml").write_text(f"{{layout: {LAYOUTS[row]}, {SETTINGS}}}")
        flags = ["--models", str(folder / "models"), "--config", str(folder / "serve.yaml")]
        return ["-m", "jobs.serve", *flags, "--port", str(port)]
    if row == LITSERVE:
        return ["-m", "benchmarks.peer_litserve", str(live), str(port), str(BATCH)]
    return ["-m", "benchmarks.peers", str(live), str(port)]


@contextlib.contextmanager
def _server(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/healthz", START_S)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
