"""Answers a second of the service, beside the servers that one would write without it, and the bare runtime.

One table, the same JPEGs of 256 px, network (resnet68, one step from random weights), cores and closed-loop clients for
every row: each connection asks again as soon as it is answered. Face detection is off, as the peers have none.

  ours           python -m jobs.serve: Ray Serve, batches, the promoted runtime (int8 by default)
  together       the same with ``layout: together``: an ingress and a model in one process
  LitServe       the same network in torch, eager, fp32, batches of the same size (extra ``bench``)
  FastAPI        the same in one uvicorn process, an image at a time
  bare runtime   what ours computes with, in process, whole batches of ready squares: the ceiling

The rows take turns; the median over the rounds counts.

  python -m benchmarks.serve
  python -m benchmarks.serve --precision bf16 --connections 1,32 --seconds 20

Where the time goes stands below: a client's wait, of it the service's own clock, of it reading and decoding, of it the
wait for a batch and the network.
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
"""A detector of one thread on each core: threads of one pass wait for each other, and so for what runs beside them."""
OURS, TOGETHER, LITSERVE, FASTAPI = "ours", "together", "LitServe", "FastAPI"
LAYOUTS = {OURS: "apart", TOGETHER: "together"}


@dataclass
class Point:
    """What a number of connections got: seconds of each answer, and the service's own clock where it tells."""

    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0
    rate: float = 0.0

    def quantile(self, share: float) -> float | None:
        """Milliseconds; None where nothing was answered in time."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Row:
    """The medians over the rounds of a number of connections; milliseconds, None where nothing was answered."""

    rate: float
    p50: float | None
    p99: float | None
    failed: int
    wait: float | None
    stages: dict[str, float]

    @classmethod
    def of(cls, points: list[Point]) -> "Row":
        """Of one point a round."""

        def quantile(share: float) -> float | None:
            found = [value for point in points if (value := point.quantile(share)) is not None]
            return statistics.median(found) if found else None

        seconds = [value for point in points for value in point.seconds]
        stages = {name for point in points for name in point.stages}
        return cls(
            rate=statistics.median(point.rate for point in points),
            p50=quantile(0.5),
            p99=quantile(0.99),
            failed=sum(point.failed for point in points),
            wait=1000 * statistics.mean(seconds) if seconds else None,
            stages={
                name: statistics.mean(v for point in points for v in point.stages.get(name, []))
                for name in ("service", "decode", "faces", "detect")
                if name in stages
            },
        )


def main() -> None:
    """Makes a model, measures every row and prints the tables; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="int8", choices=("int8", "bf16", "fp32"), help="of ours [int8]")
    parser.add_argument("--connections", default="1,8,32,128", help="open at once [1,8,32,128]")
    parser.add_argument("--seconds", type=float, default=8, help="of each point, after a warm-up [8]")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="the median of these counts [3]")
    parser.add_argument("--rows", default=f"{OURS},{TOGETHER},{LITSERVE},{FASTAPI}", help="[%(default)s]")
    given = parser.parse_args()
    connections = [int(part) for part in given.connections.split(",")]
    print(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        images = _make(folder, given.precision)
        live = versions.live(folder / "models")
        bare: list[dict[str, float]] = []
        points: dict[str, dict[int, list[Point]]] = {
            row: {count: [] for count in connections} for row in given.rows.split(",")
        }
        for number in range(given.rounds):
            bare.append(_bare(live, images))
            say(f"round {number + 1}/{given.rounds}, bare runtime: {bare[-1]['images_per_s']:.1f} images/s")
            for row, of_row in points.items():
                port = free_port()
                with _server(_command(row, folder, live, port), port):
                    for count, found in of_row.items():
                        found.append(asyncio.run(_load(port, images, count, given.seconds)))
                        say(f"  {row}, {count} connections: {found[-1].rate:.1f} images/s")
    rows = {row: {count: Row.of(found) for count, found in of_row.items()} for row, of_row in points.items()}
    medians = {name: statistics.median(one[name] for one in bare) for name in bare[0]}
    _print(given.precision, medians, rows)


def _print(precision: str, bare: dict[str, float], rows: dict[str, dict[int, Row]]) -> None:
    print(
        f"resnet68 at {SIZE} px, {STORED_SIZE} px JPEGs, batches up to {BATCH}; ours in {precision}, peers torch fp32"
    )
    print(f"bare runtime: {bare['images_per_s']:.1f} images/s in batches, {bare['ms']:.1f} ms for one image")
    print(f"{'connections':>11}  {'row':10} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8}  beside")
    for count in next(iter(rows.values())):
        for name, of_row in rows.items():
            row = of_row[count]
            peers = {peer: rows[peer][count].rate for peer in rows if name in LAYOUTS and peer not in LAYOUTS}
            beside = [f"{row.rate / rate:.2f} x {peer}" for peer, rate in peers.items() if rate]
            beside += [f"{row.rate / bare['images_per_s']:.0%} of the bare runtime"] if name in LAYOUTS else []
            beside += [f"{row.failed} refused"] if row.failed else []
            waits = " ".join(f"{'none':>8}" if ms is None else f"{ms:8.1f}" for ms in (row.p50, row.p99))
            print(f"{count:11}  {name:10} {row.rate:9.1f} {waits}  {', '.join(beside)}")
    print("where the time goes, mean ms: a client's wait > the service's clock > reading, decoding, detecting")
    ours = [(name, count, row) for name, of_row in rows.items() for count, row in of_row.items() if name in LAYOUTS]
    for name, count, row in ours:
        if row.wait is not None:
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in row.stages.items())
            print(f"{count:11}  {name:10} {row.wait:.1f} > {stages}")
    found = {name: {count: asdict(row) for count, row in of_row.items()} for name, of_row in rows.items()}
    print(json.dumps({"bare": bare, "rows": found}))


def _make(folder: Path, precision: str) -> list[bytes]:
    """Trains a step, judges and promotes, as a user would; returns the test images."""
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

    async def ask_on(session: aiohttp.ClientSession, number: int) -> None:
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
                clock = {"service": body["timing_ms"]["total"], **body["results"][0]["timing_ms"]}
                for name, value in clock.items():
                    point.stages.setdefault(name, []).append(value)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(ask_on(session, number) for number in range(connections)))
    point.rate = len(point.seconds) / seconds
    return point


def _command(row: str, folder: Path, live: Path, port: int) -> list[str]:
    if row in LAYOUTS:
        (folder / "serve.yaml").write_text(f"{{layout: {LAYOUTS[row]}, {SETTINGS}}}")
        given = ["--models", str(folder / "models"), "--config", str(folder / "serve.yaml")]
        return ["-m", "jobs.serve", *given, "--port", str(port)]
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
