"""The faults of the service: each of its processes is killed under load, and every response is checked."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from reliability.faults.fault import Fault, Workspace, ensure
from tests.support.http_service import JPEG, image_bytes
from tests.support.serving import Service, marked, running

CLIENTS, LOAD_BEFORE_S, CALM_S = 4, 4, 8
RECOVERY_S = 60
"""The service must answer again within this time, whichever process was killed."""
PROCESSES_END_S = 90
RETRY_S = 0.2
SETTINGS = """
max_batch_size: 2
poll_s: 0.5
detector_cpus: 0.2
threads: 1
ingresses: {min_replicas: 2, max_replicas: 2}
ingress_cpus: 0.1
"""
ANSWERED, REJECTED, DISCONNECTED = "answered", "rejected with 503 and Retry-After", "disconnected"
PROXY_ERROR, OTHER = "answered with 500 by Ray's proxy", "other responses"


@dataclass
class Responses:
    """What became of the requests.

    Attributes:
        counts: how many were answered, rejected, and so on.
        failed_at: when each request that was not answered failed, on the monotonic clock.
        other: the first response of an unexpected kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failed_at: list[float] = field(default_factory=list)
    other: str = ""

    def add(self, kind: str) -> None:
        """Counts one request."""
        self.counts[kind] += 1
        if kind != ANSWERED:
            self.failed_at.append(time.monotonic())

    def summary(self) -> str:
        """How many requests failed and how, in words."""
        parts = [
            f"{self.counts[kind]} {kind}" for kind in (REJECTED, DISCONNECTED, PROXY_ERROR, OTHER) if self.counts[kind]
        ]
        if len(self.failed_at) > 1:
            parts.append(f"within {self.failed_at[-1] - self.failed_at[0]:.1f} s")
        return f"of {self.counts.total()} requests: {', '.join(parts) or 'none'}"


async def _send_requests(service: Service, responses: Responses, stop: Callable[[], bool]) -> None:
    """CLIENTS clients each send one request after another until ``stop`` returns true."""
    url, data = f"http://127.0.0.1:{service.port}/v1/detect", image_bytes()

    async def client(session: aiohttp.ClientSession) -> None:
        while not stop():
            try:
                async with session.post(url, data=data, headers=JPEG) as response:
                    body = await response.text()
            except (aiohttp.ClientError, TimeoutError):
                responses.add(DISCONNECTED)
                await asyncio.sleep(RETRY_S)
                continue
            kind = _kind(response, body)
            responses.add(kind)
            if kind == REJECTED:
                await asyncio.sleep(RETRY_S)
            elif kind == OTHER:
                responses.other = responses.other or f"{response.status} {body[:300]}"

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))


def _kind(response: aiohttp.ClientResponse, body: str) -> str:
    if response.status == 200:
        return ANSWERED
    if response.status == 503 and "Retry-After" in response.headers and '"error"' in body:
        return REJECTED
    if response.status == 500 and body == "Internal Server Error":
        return PROXY_ERROR
    return OTHER


async def _kill_under_load(service: Service, process: bytes) -> Responses:
    """Kills a process and keeps up the load until no request has failed for CALM_S."""
    responses, stopped = Responses(), False
    load = asyncio.create_task(_send_requests(service, responses, lambda: stopped))
    await asyncio.sleep(LOAD_BEFORE_S)
    answered = responses.counts[ANSWERED]
    ensure(
        answered and answered == responses.counts.total(),
        f"requests failed before the fault: {responses.summary()} {responses.other}",
    )
    victims = service.pids(process)
    ensure(victims, f"no process matches {process.decode()}")
    os.kill(victims[0], signal.SIGKILL)
    deadline, calm_since = time.monotonic() + RECOVERY_S, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - calm_since < CALM_S:
        await asyncio.sleep(0.1)
        calm_since = max([calm_since, *responses.failed_at[-1:]])
    stopped = True
    await load
    ensure(
        time.monotonic() - calm_since >= CALM_S,
        f"requests still failed {RECOVERY_S} s later: {responses.summary()} {responses.other}",
    )
    return responses


def kill_process(workspace: Workspace, process: bytes, allowed: set[str]) -> str:
    """Serves a model and kills a process under load; what became of the requests.

    Args:
        process: words of the command line of the process.
        allowed: the ways in which requests may fail.
    """
    folder = workspace.new_folder()
    (folder / "serve.yaml").write_text(SETTINGS)
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(workspace.models, folder / "home", folder / "stderr", *config) as service:
        responses = asyncio.run(_kill_under_load(service, process))
        ensure(set(responses.counts) <= allowed | {ANSWERED}, f"{responses.summary()} {responses.other}")
        ensure(service.process.poll() is None, "the service ended")
        ensure(service.pids(process), "the process was not started again")
    return responses.summary()


def kill_driver(workspace: Workspace) -> str:
    """Kills the driver of the service and checks that no process is left and the port is free."""
    folder = workspace.new_folder()
    (folder / "home").mkdir()
    with running(workspace.models, folder / "home", folder / "stderr") as service:
        count, started = len(marked(service.mark)), time.monotonic()
        service.process.kill()
        while (left := marked(service.mark)) and time.monotonic() - started < PROCESSES_END_S:
            time.sleep(0.2)
        took_s = time.monotonic() - started
        names = [Path(f"/proc/{pid}/cmdline").read_bytes()[:80] for pid in left if Path(f"/proc/{pid}").exists()]
        ensure(not names, f"still running {PROCESSES_END_S} s later: {names}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", service.port))
    return f"the service; its {count} processes had ended after {took_s:.0f} s, and the port was free"


SERVING = (
    Fault(
        name="a detector replica is killed under load",
        promise="no response is lost: its requests go to another replica or are rejected with 503 and Retry-After",
        cause="SIGKILL to the replica that holds the model",
        checks="every response, and that a new replica starts",
        run=partial(kill_process, process=b"ServeReplica:detector:Detector", allowed={REJECTED}),
        tested_by="tests/serve/test_load.py",
    ),
    Fault(
        name="an ingress replica is killed under load",
        promise="Ray's proxy answers that replica's current requests with its own 500; all others are answered",
        cause="SIGKILL to one of two ingress replicas",
        checks="every response, and that a new replica starts",
        run=partial(kill_process, process=b"ServeReplica:detector:Ingress", allowed={REJECTED, PROXY_ERROR}),
    ),
    Fault(
        name="the Serve proxy is killed under load",
        promise="clients are disconnected; a new proxy listens within a minute",
        cause="SIGKILL to the process that listens on the port",
        checks="every response, and how long the service was unreachable",
        run=partial(kill_process, process=b"ProxyActor", allowed={REJECTED, DISCONNECTED}),
        quick=True,
    ),
    Fault(
        name="the Serve controller is killed under load",
        promise="no response is lost",
        cause="SIGKILL to the process that starts and scales replicas",
        checks="every response, and that a new controller starts",
        run=partial(kill_process, process=b"ServeController", allowed=set()),
    ),
    Fault(
        name="the service's driver is killed",
        promise="no process is left behind",
        cause="SIGKILL to python -m jobs.serve",
        checks="its processes and its port",
        run=kill_driver,
    ),
)
