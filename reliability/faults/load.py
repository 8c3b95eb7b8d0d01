"""Load on a running service, and what became of its requests while something happened to it."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp

from reliability.faults.fault import Workspace, ensure
from tests.support.http_service import JPEG, image_bytes
from tests.support.serving import Service, running

CLIENTS, LOAD_BEFORE_S, CALM_S = 4, 4, 8
RECOVERY_S = 60
"""The service must answer again within this time, whatever happened."""
RETRY_S = 0.2
REPLICA = b"ServeReplica:detector:Ingress"
TWO_REPLICAS = """
max_batch_size: 2
poll_s: 0.5
detector_cpus: 0.2
threads: 1
detectors: {min_replicas: 2, max_replicas: 2}
"""
ONE_REPLICA = TWO_REPLICAS.replace("2, max_replicas: 2", "1, max_replicas: 1")
APART = f"""{ONE_REPLICA}
layout: apart
ingresses: {{min_replicas: 2, max_replicas: 2}}
ingress_cpus: 0.1
"""
ANSWERED, REJECTED, DISCONNECTED = "answered", "rejected with 503 and Retry-After", "disconnected"
OTHER = "other responses"
IMAGES = 500
"""How many different images the load consists of: a canary counts each once."""


@dataclass
class Responses:
    """What became of the requests.

    Attributes:
        counts: how many were answered, rejected, and so on.
        failed_at: when each request that was not answered failed, on the monotonic clock.
        other: the first response of an unexpected kind.
        versions: how many requests each version of the model answered.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failed_at: list[float] = field(default_factory=list)
    other: str = ""
    versions: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str) -> None:
        """Counts one request."""
        self.counts[kind] += 1
        if kind != ANSWERED:
            self.failed_at.append(time.monotonic())

    def summary(self) -> str:
        """How many requests failed and how, in words."""
        parts = [f"{self.counts[kind]} {kind}" for kind in (REJECTED, DISCONNECTED, OTHER) if self.counts[kind]]
        if len(self.failed_at) > 1:
            parts.append(f"within {self.failed_at[-1] - self.failed_at[0]:.1f} s")
        return f"of {self.counts.total()} requests: {', '.join(parts) or 'none'}"


async def send_requests(
    service: Service, responses: Responses, stop: Callable[[], bool], clients: int = CLIENTS
) -> None:
    """Each of some clients sends one request after another until ``stop`` returns true."""
    url = f"http://127.0.0.1:{service.port}/v1/detect"
    images = itertools.cycle([image_bytes(seed=seed) for seed in range(IMAGES)])

    async def client(session: aiohttp.ClientSession) -> None:
        while not stop():
            try:
                async with session.post(url, data=next(images), headers=JPEG) as response:
                    body = await response.text()
            except (aiohttp.ClientError, TimeoutError):
                responses.add(DISCONNECTED)
                await asyncio.sleep(RETRY_S)
                continue
            kind = _kind(response, body)
            responses.add(kind)
            if kind == ANSWERED:
                responses.versions[json.loads(body)["results"][0]["model"]["version"]] += 1
            elif kind == REJECTED:
                await asyncio.sleep(RETRY_S)
            elif kind == OTHER:
                responses.other = responses.other or f"{response.status} {body[:300]}"

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))


def _kind(response: aiohttp.ClientResponse, body: str) -> str:
    if response.status == 200:
        return ANSWERED
    if response.status == 503 and "Retry-After" in response.headers and '"error"' in body:
        return REJECTED
    return OTHER


async def disturb_under_load(service: Service, disturb: Callable[[], object]) -> Responses:
    """Calls ``disturb`` in a thread and keeps up the load until no request has failed for CALM_S."""
    responses, stopped = Responses(), False
    load = asyncio.create_task(send_requests(service, responses, lambda: stopped))
    try:
        await asyncio.sleep(LOAD_BEFORE_S)
        answered = responses.counts[ANSWERED]
        ensure(
            answered and answered == responses.counts.total(),
            f"requests failed before the fault: {responses.summary()} {responses.other}",
        )
        await asyncio.to_thread(disturb)
        deadline, calm_since = time.monotonic() + RECOVERY_S, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - calm_since < CALM_S:
            await asyncio.sleep(0.1)
            calm_since = max([calm_since, *responses.failed_at[-1:]])
    finally:
        stopped = True
        await load
    ensure(
        time.monotonic() - calm_since >= CALM_S,
        f"requests still failed {RECOVERY_S} s later: {responses.summary()} {responses.other}",
    )
    return responses


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return condition()


@contextlib.contextmanager
def serving(workspace: Workspace, settings: str) -> Iterator[Service]:
    """Serves the model of the workspace with some settings (YAML)."""
    folder = workspace.new_folder()
    (folder / "serve.yaml").write_text(settings)
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(workspace.models, folder / "home", folder / "stderr", *config) as service:
        yield service
