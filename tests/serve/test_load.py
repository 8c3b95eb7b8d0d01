"""Load on a real Ray Serve: too much of it, a replica that dies, a model that changes, replicas that come and go.

``python -m tests.serve.test_load SECONDS`` holds the flood for longer and prints what it saw.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from detector_core.registry import versions
from tests.support.http_service import JPEG, image_bytes
from tests.support.models import save_model
from tests.support.serving import Service, marked, running

FLOOD, LIGHT = 96, 4
"""Connections that ask without a pause: about ten times what the settings below take at once, and well within."""
SETTINGS = """
max_batch_size: 2
max_queued: 4
poll_s: 0.5
detector_cpus: 0.2
threads: 1
detectors: {min_replicas: 1, max_replicas: 3, target_ongoing_requests: 0.5, upscale_delay_s: 1, downscale_delay_s: 3}
ingresses: {min_replicas: 1, max_replicas: 1}
ingress_cpus: 0.1
http: {limits: {max_files: 1, max_faces: 1}}
"""
RECOVERY_S = 5
DETECTOR = b"ServeReplica:detector:Detector"


@dataclass
class Seen:
    """What a load was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def load(service: Service, connections: int, stop: asyncio.Event) -> Seen:
    """Asks on each connection, again as soon as it is answered, until ``stop``; every request is waited for."""
    seen, data = Seen(), image_bytes((32, 32))
    url = f"http://127.0.0.1:{service.port}/v1/detect"

    async def ask_on(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            started = time.perf_counter()
            async with session.post(url, data=data, headers=JPEG) as response:
                body = await response.json()
                seen.statuses[response.status] += 1
                seen.seconds.setdefault(response.status, []).append(time.perf_counter() - started)
                if response.status == 200:
                    seen.versions.append(body["results"][0]["model"]["version"])
                elif response.status != 503 or "Retry-After" not in response.headers or "error" not in body:
                    seen.wrong.append(json.dumps(body))

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(ask_on(session) for _ in range(connections)))
    return seen


async def for_(service: Service, connections: int, seconds: float, meanwhile: Any = None) -> Seen:
    """A load of so many seconds; ``meanwhile`` is called in its middle."""
    stop = asyncio.Event()
    running = asyncio.create_task(load(service, connections, stop))
    await asyncio.sleep(seconds / 2)
    if meanwhile:
        await asyncio.to_thread(meanwhile)
    await asyncio.sleep(seconds / 2)
    stop.set()
    return await running


def detectors(service: Service) -> list[int]:
    """The processes of the replicas that hold the model."""
    return service.pids(DETECTOR)


def memory(service: Service) -> int:
    """Bytes that the processes of the service hold for themselves."""
    total = 0
    for pid in marked(service.mark):
        try:
            resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return total


def until(true: Any, seconds: float) -> bool:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(true())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("load")
    versions.promote(save_model(folder / "first", run="first"), folder / "models")
    (folder / "serve.yaml").write_text(SETTINGS)
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
        yield service


def test_a_flood_is_refused_in_our_form_and_the_service_recovers(service: Service) -> None:
    seen = asyncio.run(for_(service, FLOOD, 6))
    assert seen.wrong == []
    assert set(seen.statuses) == {200, 503}
    started = time.monotonic()
    assert until(lambda: service.ask("POST", "/v1/detect", image_bytes(), "image/jpeg")[0] == 200, RECOVERY_S)
    assert time.monotonic() - started < RECOVERY_S


def test_replicas_come_with_the_load_and_go_with_it(service: Service) -> None:
    stop = asyncio.Event()

    async def story() -> int:
        running = asyncio.create_task(load(service, FLOOD, stop))
        grown = await asyncio.to_thread(until, lambda: len(detectors(service)) >= 2, 60)
        stop.set()
        await running
        return grown

    assert asyncio.run(story())
    assert until(lambda: len(detectors(service)) == 1, 90)


def test_a_killed_replica_costs_no_answer(service: Service) -> None:
    def kill() -> None:
        os.kill(detectors(service)[0], signal.SIGKILL)

    before = detectors(service)
    seen = asyncio.run(for_(service, LIGHT, 6, kill))
    assert seen.wrong == []
    assert seen.statuses[200] > seen.statuses[503]
    assert until(lambda: service.ask("GET", "/readyz")[0] == 200, 60)
    assert detectors(service) != before


def test_another_live_model_rolls_out_without_a_failed_request(service: Service, tmp_path: Path) -> None:
    before = versions.live(service.models).name
    better = save_model(tmp_path / "second", run="second", seed=1, auc=0.95)

    def roll_out() -> None:
        now = versions.promote(better, service.models)
        assert until(lambda: json.loads(service.ask("GET", "/v1/model")[1])["version"] == now, 60)

    seen = asyncio.run(for_(service, LIGHT, 8, roll_out))
    assert seen.wrong == []
    assert set(seen.statuses) == {200}
    assert set(seen.versions) == {before, versions.live(service.models).name}
    assert json.loads(service.ask("GET", "/v1/model")[1])["version"] == versions.live(service.models).name


def main(seconds: float) -> None:
    """The flood for longer: what was answered, how fast, and what it did to the memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        versions.promote(save_model(folder / "first", run="first"), folder / "models")
        (folder / "serve.yaml").write_text(SETTINGS)
        (folder / "home").mkdir()
        config = ("--config", str(folder / "serve.yaml"))
        with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
            asyncio.run(for_(service, LIGHT, 5))
            before = memory(service)
            seen = asyncio.run(for_(service, FLOOD, seconds))
            for status, times in sorted(seen.seconds.items()):
                times.sort()
                print(
                    f"{status}: {len(times)} answers, p50 {times[len(times) // 2]:.3f} s, "
                    f"p99 {times[int(len(times) * 0.99)]:.3f} s"
                )
            print(
                f"detectors {len(detectors(service))}, memory {before / 2**20:.0f} -> {memory(service) / 2**20:.0f} MiB"
            )
            print(f"answers of another form: {len(seen.wrong)}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
