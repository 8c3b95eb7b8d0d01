"""The faults of the service: each of its processes is killed under load, and every answer is looked at."""

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

from reliability.faults.table import Fault, Scene, ensure
from tests.support.asking import JPEG, image_bytes
from tests.support.serving import Service, marked, running

CLIENTS, BEFORE_S, AFTER_S = 4, 4, 8
BACK_S = 60
"""Within this a service answers again, whatever was killed."""
GONE_S = 90
SETTINGS = """
max_batch_size: 2
follow_s: 0.5
detector_cpus: 0.2
threads: 1
ingresses: {min_replicas: 2, max_replicas: 2}
ingress_cpus: 0.1
"""
OK, REFUSED, CUT, OTHER = "answered", "refused with 503 and Retry-After", "connections cut", "other answers"
FAILED = "answered with 500 by Ray's proxy"


@dataclass
class Seen:
    """What became of requests, the moments of those that were not answered, and the first answer of another form."""

    what: Counter[str] = field(default_factory=Counter)
    missed: list[float] = field(default_factory=list)
    other: str = ""

    def note(self, what: str) -> None:
        """One request."""
        self.what[what] += 1
        if what != OK:
            self.missed.append(time.monotonic())

    def lost(self) -> str:
        """In words."""
        parts = [f"{self.what[name]} {name}" for name in (REFUSED, CUT, FAILED, OTHER) if self.what[name]]
        if len(self.missed) > 1:
            parts.append(f"the last of them {self.missed[-1] - self.missed[0]:.1f} s after the first")
        return f"of {self.what.total()} requests: {', '.join(parts) or 'none'}"


async def _ask(service: Service, seen: Seen, until: Callable[[], bool]) -> None:
    url, data = f"http://127.0.0.1:{service.port}/v1/detect", image_bytes()

    async def client(session: aiohttp.ClientSession) -> None:
        while not until():
            try:
                async with session.post(url, data=data, headers=JPEG) as response:
                    body = await response.text()
            except (aiohttp.ClientError, TimeoutError):
                seen.note(CUT)
                await asyncio.sleep(0.2)
                continue
            if response.status == 503 and "Retry-After" in response.headers and '"error"' in body:
                seen.note(REFUSED)
                await asyncio.sleep(0.2)
            elif response.status == 500 and body == "Internal Server Error":
                seen.note(FAILED)
            elif response.status != 200:
                seen.note(OTHER)
                seen.other = seen.other or f"{response.status} {body[:300]}"
            else:
                seen.note(OK)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))


async def _under_load(service: Service, words: bytes) -> Seen:
    """A process is killed; asked until it answers again, and a while longer."""
    seen, over = Seen(), False
    asking = asyncio.create_task(_ask(service, seen, lambda: over))
    await asyncio.sleep(BEFORE_S)
    ensure(
        seen.what[OK] and seen.what.total() == seen.what[OK], f"before anything happened: {seen.lost()} {seen.other}"
    )
    victims = service.pids(words)
    ensure(victims, f"no process like {words.decode()}")
    os.kill(victims[0], signal.SIGKILL)
    deadline, calm = time.monotonic() + BACK_S, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - calm < AFTER_S:
        await asyncio.sleep(0.1)
        calm = max([calm, *seen.missed[-1:]])
    over = True
    await asking
    ensure(time.monotonic() - calm >= AFTER_S, f"not calm within {BACK_S} s: {seen.lost()} {seen.other}")
    return seen


def killed(scene: Scene, words: bytes, allowed: set[str]) -> str:
    """Serves, asks, kills; what became of the requests. Raises Broken."""
    corner = scene.corner()
    (corner / "serve.yaml").write_text(SETTINGS)
    (corner / "home").mkdir()
    config = ("--config", str(corner / "serve.yaml"))
    with running(scene.models, corner / "home", corner / "stderr", *config) as service:
        seen = asyncio.run(_under_load(service, words))
        ensure(set(seen.what) <= allowed | {OK}, f"{seen.lost()} {seen.other}")
        ensure(service.process.poll() is None, "the service ended")
        ensure(service.pids(words), "it was not started again")
    return seen.lost()


def driver_killed(scene: Scene) -> str:
    """Nothing is left, and the port is free."""
    corner = scene.corner()
    (corner / "home").mkdir()
    with running(scene.models, corner / "home", corner / "stderr") as service:
        held, begun = len(marked(service.mark)), time.monotonic()
        service.process.kill()
        while (left := marked(service.mark)) and time.monotonic() - begun < GONE_S:
            time.sleep(0.2)
        took = time.monotonic() - begun
        names = [Path(f"/proc/{pid}/cmdline").read_bytes()[:80] for pid in left if Path(f"/proc/{pid}").exists()]
        ensure(not names, f"left after {GONE_S} s: {names}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", service.port))
    return f"the service; its {held} processes were gone after {took:.0f} s, and the port was free"


SERVING = (
    Fault(
        name="a detector is killed under load",
        promise="no answer is lost: what it had in hand is judged by the next, or refused with 503 and Retry-After",
        made="SIGKILL to the replica that holds the model",
        checked="every answer, and that there is a new replica",
        run=partial(killed, words=b"ServeReplica:detector:Detector", allowed={REFUSED}),
        elsewhere="tests/serve/test_load.py",
    ),
    Fault(
        name="an ingress is killed under load",
        promise="what it had in hand is answered with 500 by Ray's proxy, in words of its own; the rest is answered",
        made="SIGKILL to one of two ingresses",
        checked="every answer, and that there is a new replica",
        run=partial(killed, words=b"ServeReplica:detector:Ingress", allowed={REFUSED, FAILED}),
    ),
    Fault(
        name="the Serve proxy is killed under load",
        promise="connections are cut; a new proxy listens within a minute",
        made="SIGKILL to the process that listens on the port",
        checked="every answer, and for how long there was none",
        run=partial(killed, words=b"ProxyActor", allowed={REFUSED, CUT}),
        quick=True,
    ),
    Fault(
        name="the Serve controller is killed under load",
        promise="no answer is lost",
        made="SIGKILL to the process that starts and scales replicas",
        checked="every answer, and that there is a new controller",
        run=partial(killed, words=b"ServeController", allowed=set()),
    ),
    Fault(
        name="the service's driver is killed",
        promise="no process is left behind",
        made="SIGKILL to python -m serve_app",
        checked="its processes and its port",
        run=driver_killed,
    ),
)
