"""Load on a real Ray Serve: overload, a killed replica, a promotion, autoscaling, a killed HAProxy.

``python -m tests.serve.test_load SECONDS`` overloads the service for longer and prints statistics.
"""

import asyncio
import itertools
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

from detector_core.registry import canaries, versions
from reliability.faults import load as faults_load
from reliability.faults.load import DISCONNECTED, REJECTED, REPLICA, wait_until
from reliability.faults.rollout import CALLS_ALL_FAKE, promote_and_roll_back_on
from reliability.faults.serving import HAPROXY, kill_process_of
from tests.support.http_service import JPEG, image_bytes
from tests.support.models import save_model
from tests.support.serving import Service, marked, running

pytestmark = pytest.mark.serial
OVERLOAD, LIGHT = 96, 4
"""Connections that send requests without a pause: about ten times what SETTINGS allow at a time, and well within it."""
POLL_S = 0.5
SETTINGS = f"""
max_batch_size: 2
max_queued: 4
poll_s: {POLL_S}
detector_cpus: 0.2
threads: 1
detectors: {{min_replicas: 2, max_replicas: 3, target_ongoing_requests: 1, upscale_delay_s: 1, downscale_delay_s: 3}}
http: {{limits: {{max_files: 1, max_faces: 1}}}}
"""
RECOVERY_S = 5


@dataclass
class Answers:
    """The answers to a load.

    Attributes:
        malformed: bodies of errors that are not in the form of the service, or lack Retry-After.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)


async def load(service: Service, connections: int, stop: asyncio.Event) -> Answers:
    """Sends requests on each connection, one after the other, until ``stop`` is set, and waits for all answers."""
    answers, data = Answers(), image_bytes((32, 32))
    url = f"http://127.0.0.1:{service.port}/v1/detect"

    async def send_on(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            started = time.perf_counter()
            async with session.post(url, data=data, headers=JPEG) as response:
                body = await response.json()
                answers.statuses[response.status] += 1
                answers.seconds.setdefault(response.status, []).append(time.perf_counter() - started)
                if response.status == 200:
                    answers.versions.append(body["results"][0]["model"]["version"])
                elif response.status != 503 or "Retry-After" not in response.headers or "error" not in body:
                    answers.malformed.append(json.dumps(body))

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(send_on(session) for _ in range(connections)))
    return answers


async def load_for(seconds: float, service: Service, connections: int, meanwhile: Any = None) -> Answers:
    """Loads the service for a number of seconds; ``meanwhile`` is called at half time."""
    stop = asyncio.Event()
    running = asyncio.create_task(load(service, connections, stop))
    await asyncio.sleep(seconds / 2)
    if meanwhile:
        await asyncio.to_thread(meanwhile)
    await asyncio.sleep(seconds / 2)
    stop.set()
    return await running


def replicas(service: Service) -> list[int]:
    """The process ids of the replicas."""
    return service.pids(REPLICA)


def memory(service: Service) -> int:
    """The unshared memory of all processes of the service, in bytes."""
    total = 0
    for pid in marked(service.mark):
        try:
            resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return total


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("load")
    versions.promote(save_model(folder / "first", run="first"), folder / "models")
    (folder / "serve.yaml").write_text(SETTINGS)
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
        yield service


def test_overload_is_refused_with_503_and_the_service_recovers(service: Service) -> None:
    answers = asyncio.run(load_for(3, service, OVERLOAD))
    assert answers.malformed == []
    assert set(answers.statuses) == {200, 503}
    started = time.monotonic()
    assert wait_until(lambda: service.request("POST", "/v1/detect", image_bytes(), "image/jpeg")[0] == 200, RECOVERY_S)
    assert time.monotonic() - started < RECOVERY_S


def test_the_number_of_replicas_follows_the_load_and_no_request_fails_when_one_is_stopped(service: Service) -> None:
    async def scale_up_and_down() -> tuple[bool, bool, Answers]:
        stop, calm = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(load(service, OVERLOAD, stop))
        grown = await asyncio.to_thread(wait_until, lambda: len(replicas(service)) == 3, 60)
        stop.set()
        await running
        light = asyncio.create_task(load(service, 1, calm))
        shrunk = await asyncio.to_thread(wait_until, lambda: len(replicas(service)) == 2, 90)
        calm.set()
        return grown, shrunk, await light

    grown, shrunk, answers = asyncio.run(scale_up_and_down())
    assert grown
    assert shrunk
    assert set(answers.statuses) == {200}


def test_no_request_fails_when_a_replica_is_killed(service: Service) -> None:
    before = replicas(service)
    answers = asyncio.run(load_for(4, service, LIGHT, lambda: os.kill(before[0], signal.SIGKILL)))
    assert answers.malformed == []
    assert set(answers.statuses) == {200}
    assert wait_until(lambda: len(replicas(service)) == 2 and before[0] not in replicas(service), 60)


def test_no_request_fails_during_a_promotion_and_a_rollback(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicken(monkeypatch)
    better = save_model(tmp_path / "second", run="second", seed=1, auc=0.95)
    print(promote_and_roll_back_on(service, better))


def test_a_candidate_that_disagrees_answers_its_share_and_goes_back_by_itself(service: Service, tmp_path: Path) -> None:
    live = versions.live(service.models).name
    candidate = versions.stage(save_model(tmp_path / "other", run="other", thresholds=CALLS_ALL_FAKE), service.models)
    canary = canaries.start(service.models, candidate, share=0.5)
    answered, seeds = Counter[str](), itertools.count()

    def ask() -> None:
        data = image_bytes((32, 32), seed=next(seeds))
        status, body = service.request("POST", "/v1/detect", data, "image/jpeg")
        assert status == 200
        model = json.loads(body)["results"][0]["model"]["version"]
        assert model == live or canary.takes(canary.digest(data))
        answered[model] += 1

    def ask_until_it_ends() -> bool:
        for _ in range(10):
            ask()
        latest = canaries.latest(service.models)
        return latest is not None and latest.outcome == "went_back"

    assert wait_until(ask_until_it_ends, 60)
    assert set(answered) == {live, candidate}
    time.sleep(3 * POLL_S)  # until the other replica has looked, too
    before = answered[candidate]
    ask_until_it_ends()
    assert answered[candidate] == before
    shown = json.loads(service.request("GET", "/v1/model")[1])["canary"]
    assert (shown["version"], shown["state"]) == (candidate, "went_back")
    assert shown["disagreements"] == shown["images"] >= 30


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the load before and after what happens."""
    monkeypatch.setattr(faults_load, "LOAD_BEFORE_S", 2)
    monkeypatch.setattr(faults_load, "CALM_S", 4)


def test_clients_are_disconnected_when_haproxy_is_killed_and_another_one_listens(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicken(monkeypatch)
    print(kill_process_of(service, HAPROXY, {REJECTED, DISCONNECTED}))


def main(seconds: float) -> None:
    """Overloads the service for longer, and prints the answers, their durations and the memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        versions.promote(save_model(folder / "first", run="first"), folder / "models")
        (folder / "serve.yaml").write_text(SETTINGS)
        (folder / "home").mkdir()
        config = ("--config", str(folder / "serve.yaml"))
        with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
            asyncio.run(load_for(5, service, LIGHT))
            before = memory(service)
            answers = asyncio.run(load_for(seconds, service, OVERLOAD))
            for status, times in sorted(answers.seconds.items()):
                times.sort()
                print(
                    f"{status}: {len(times)} answers, p50 {times[len(times) // 2]:.3f} s, "
                    f"p99 {times[int(len(times) * 0.99)]:.3f} s"
                )
            print(
                f"replicas {len(replicas(service))}, memory {before / 2**20:.0f} -> {memory(service) / 2**20:.0f} MiB"
            )
            print(f"malformed answers: {len(answers.malformed)}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
