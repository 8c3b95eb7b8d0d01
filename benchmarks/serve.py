"""Throughput and latency of the service, compared with the servers that one would write without it, and with the
bare runtime.

Every row uses the same 256 px JPEGs, network (resnet68, one step from random weights) and cores, on which the client
runs too (see ``benchmarks.http_load``). Face detection is off, as the peers have none.

  ours           python -m jobs.serve as it comes: HAProxy, ingress and model in one process, the promoted runtime
  apart          the same with ``layout: apart``: ingress and model in processes of their own
  Ray's proxy    the same as ours with ``front: {proxy: ray}``
  Ray Serve      the same network in torch, eager, fp32, in a deployment as in Ray's documentation
  LitServe       the same in batches of the same size (extra ``bench``)
  FastAPI        the same in one uvicorn process, one image at a time
  bare runtime   the runtime of ours, in process, on full batches of decoded squares: the upper limit; and the same
                 with decoding

The rows run in turns; the median over the rounds counts, and quantiles of the latency are taken over all rounds. With
one connection, ours is measured for as long as --requests take.

  python -m benchmarks.serve
  python -m benchmarks.serve --precision bf16 --connections 1,32 --seconds 20

A second table shows where the time goes: CPU milliseconds for an image by kind of process. Neighbors on the machine
change them less than anything else here.

The last line on stdout is one JSON object: client, bare, rows.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import cpu
from benchmarks.http_load import Client, Measured
from benchmarks.machine import describe
from detector_core.data import demo
from detector_core.images.decode import Pixels
from detector_core.images.preprocess import decode, square
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from jobs.common.cli import say
from jobs.common.loopback import free_port, wait_until_ready

SIZE, STORED_SIZE, BATCH = 224, 256, 16
COUNTS = {"train": 16, "valid": 8, "test": 8}
START_S, STOP_S, LONGEST_S = 300, 90, 180
OURS, APART, RAYS_PROXY, RAY_SERVE, LITSERVE, FASTAPI = (
    "ours",
    "apart",
    "Ray's proxy",
    "Ray Serve",
    "LitServe",
    "FastAPI",
)
SETTINGS = f"max_batch_size: {BATCH}, max_queued: 512, http: {{max_open: 512}}"
"""As many requests may wait as the largest number of connections, so that none is refused."""
VARIANTS = {
    OURS: f"{{{SETTINGS}}}",
    APART: f"{{layout: apart, ingresses: {{max_replicas: 1}}, {SETTINGS}}}",
    RAYS_PROXY: f"{{front: {{proxy: ray}}, {SETTINGS}}}",
}
"""The settings of the rows that run ``jobs.serve``."""
PEERS = {RAY_SERVE: "benchmarks.peer_ray_serve", LITSERVE: "benchmarks.peer_litserve", FASTAPI: "benchmarks.peers"}


@dataclass(frozen=True)
class Row:
    """A server with a number of connections, over all rounds.

    Attributes:
        images_per_s: the median.
        p50, p99: milliseconds; None if nothing was answered.
        requests: answers that the quantiles were taken from.
        cpu_ms: CPU milliseconds for an image, by kind of process of the server: the median.
        client_ms: those of the client.
    """

    images_per_s: float
    p50: float | None
    p99: float | None
    requests: int
    failed: int
    cpu_ms: dict[str, float]
    client_ms: float

    @classmethod
    def of(cls, rounds: list[tuple[Measured, dict[str, float]]]) -> "Row":
        """Combines what was measured in each round with the CPU time of its server."""
        pooled = Measured()
        for measured, _ in rounds:
            pooled.latencies += measured.latencies
        kinds = sorted({kind for _, used in rounds for kind in used})
        return cls(
            images_per_s=statistics.median(measured.answered / measured.seconds for measured, _ in rounds),
            p50=pooled.quantile(0.5),
            p99=pooled.quantile(0.99),
            requests=pooled.answered,
            failed=sum(measured.failed for measured, _ in rounds),
            cpu_ms={kind: statistics.median(used.get(kind, 0.0) for _, used in rounds) for kind in kinds},
            client_ms=statistics.median(measured.client_ms for measured, _ in rounds),
        )

    @property
    def server_ms(self) -> float:
        """CPU milliseconds of the whole server for an image."""
        return sum(self.cpu_ms.values())


def main() -> None:
    """Makes a model, measures every row and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="int8", choices=("int8", "bf16", "fp32"), help="of our rows [int8]")
    parser.add_argument("--connections", default="1,8,32,128", help="numbers of open connections [1,8,32,128]")
    parser.add_argument("--seconds", type=float, default=8, help="duration of each measurement, after a warm-up [8]")
    parser.add_argument("--requests", type=int, default=2000, help="of ours with one connection, all rounds [2000]")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="number of rounds [3]")
    parser.add_argument("--rows", default=",".join([*VARIANTS, *PEERS]), help="rows [%(default)s]")
    arguments = parser.parse_args()
    connections = [int(part) for part in arguments.connections.split(",")]
    print(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        images = _make(folder, arguments.precision)
        (folder / "client").mkdir()
        client, live = Client(images, folder / "client"), versions.live(folder / "models")
        bare: list[dict[str, float]] = []
        rounds: dict[str, dict[int, list[tuple[Measured, dict[str, float]]]]] = {
            row: {count: [] for count in connections} for row in arguments.rows.split(",")
        }
        for number in range(arguments.rounds):
            bare.append(_bare(live, images))
            say(f"round {number + 1}/{arguments.rounds}, bare runtime: {bare[-1]['images_per_s']:.1f} images/s")
            for row, of_row in rounds.items():
                port = free_port()
                with _server(_command(row, folder, live, port), port) as pid:
                    for count, measured in of_row.items():
                        wanted = arguments.requests / arguments.rounds if (row, count) == (OURS, 1) else 0
                        measured.append(_measure(client, port, pid, count, arguments.seconds, wanted))
                        speed = measured[-1][0].answered / measured[-1][0].seconds
                        say(f"  {row}, {count} connections: {speed:.1f} images/s")
    rows = {row: {count: Row.of(of_count) for count, of_count in of_row.items()} for row, of_row in rounds.items()}
    medians = {name: statistics.median(measured[name] for measured in bare) for name in bare[0]}
    _print(arguments.precision, client.name, medians, rows)


def _measure(
    client: Client, port: int, pid: int, connections: int, seconds: float, requests: float
) -> tuple[Measured, dict[str, float]]:
    """Warms up, then measures for ``seconds``, or for as long as so many requests take if that is longer."""
    warm = client.send(port, connections, min(5.0, max(2.0, seconds / 2)))
    seconds = min(LONGEST_S, max(seconds, 1.1 * requests * warm.seconds / max(warm.answered, 1)))
    before = cpu.milliseconds(pid)
    measured = client.send(port, connections, seconds)
    return measured, cpu.per_image(before, cpu.milliseconds(pid), measured.answered)


def _print(precision: str, client: str, bare: dict[str, float], rows: dict[str, dict[int, Row]]) -> None:
    print(
        f"resnet68 at {SIZE} px, {STORED_SIZE} px JPEGs, batches up to {BATCH}; ours in {precision}, peers torch fp32; "
        f"client {client}"
    )
    print(
        f"bare runtime: {bare['images_per_s']:.1f} images/s in batches, {bare['decoded_images_per_s']:.1f} with "
        f"decoding, {bare['ms']:.1f} ms for one image; {bare['cpu_ms']:.1f} CPU ms for an image"
    )
    print(f"{'connections':>11}  {'row':12} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>7}  compared with")
    for count in next(iter(rows.values())):
        for name, of_row in rows.items():
            row = of_row[count]
            peers = {peer: rows[peer][count].images_per_s for peer in PEERS if name in VARIANTS and peer in rows}
            ratios = [f"{row.images_per_s / speed:.2f} x {peer}" for peer, speed in peers.items() if speed]
            ratios += [f"{row.images_per_s / bare['images_per_s']:.0%} of the bare runtime"] if name in VARIANTS else []
            ratios += [f"{row.failed} failed"] if row.failed else []
            waits = " ".join(f"{'none':>8}" if ms is None else f"{ms:8.1f}" for ms in (row.p50, row.p99))
            print(f"{count:11}  {name:12} {row.images_per_s:9.1f} {waits} {row.server_ms:7.1f}  {', '.join(ratios)}")
    print("where the time goes, CPU ms for an image by kind of process, and of the client")
    for name, of_row in rows.items():
        for count, row in of_row.items():
            parts = ", ".join(f"{kind} {ms:.2f}" for kind, ms in sorted(row.cpu_ms.items(), key=lambda part: -part[1]))
            print(f"{count:11}  {name:12} {parts}; client {row.client_ms:.2f}")
    values = {
        name: {count: {**asdict(row), "server_ms": row.server_ms} for count, row in of_row.items()}
        for name, of_row in rows.items()
    }
    print(json.dumps({"client": client, "bare": bare, "rows": values}))


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
    """The runtime of ours in this process: full batches of squares, full batches of files, and single squares."""
    cores = os.cpu_count() or 1
    predictor = Predictor(live, batch_size=BATCH, threads=cores)
    files = images[:BATCH]

    def read(data: bytes) -> Pixels:
        return square(decode(data), predictor.info.preprocess)

    with ThreadPoolExecutor(cores) as pool:
        squares = list(pool.map(read, files))
        many = _seconds(lambda: predictor.predict(squares), rounds)
        used = time.process_time()
        predictor.predict(squares)
        used = time.process_time() - used
        decoded = _seconds(lambda: predictor.predict(list(pool.map(read, files))), rounds)
    one = _seconds(lambda: predictor.predict(squares[:1]), 5 * rounds)
    count = len(squares)
    return {
        "images_per_s": count / many,
        "decoded_images_per_s": count / decoded,
        "ms": 1000 * one,
        "cpu_ms": 1000 * used / count,
    }


def _seconds(work: Callable[[], object], rounds: int) -> float:
    """The median duration of a call, after one to warm up."""
    work()
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _command(row: str, folder: Path, live: Path, port: int) -> list[str]:
    if row in VARIANTS:
        (folder / "serve.yaml").write_text(VARIANTS[row])
        flags = ["--models", str(folder / "models"), "--config", str(folder / "serve.yaml")]
        return ["-m", "jobs.serve", *flags, "--port", str(port)]
    return ["-m", PEERS[row], str(live), str(port), str(BATCH)]


@contextlib.contextmanager
def _server(command: list[str], port: int) -> Iterator[int]:
    """Runs a server and yields its process id."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/healthz", START_S)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
