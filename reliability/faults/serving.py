"""The faults of the service: each of its processes is killed under load, and every response is checked."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
PROCESSES_END_S, HEAD_LOST_S = 180, 80
"""Ray's agents wait a minute for the control store, after the raylet has waited as long."""
REPLICA, HAPROXY = b"ServeReplica:detector:Ingress", b"/haproxy\0-db\0"
RETRY_S = 0.2
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
REDEPLOY = """
import sys
import jobs
import ray, yaml
from ray import serve
from serve_app.app import build
from serve_app.settings import Settings
models, config, address = sys.argv[1:]
ray.init(address, logging_level="WARNING")
serve.run(build(Settings(**yaml.safe_load(config), models=models)), name="detector", route_prefix="/")
"""
"""Deploys another configuration on the running service, as a new release would."""
ANSWERED, REJECTED, DISCONNECTED = "answered", "rejected with 503 and Retry-After", "disconnected"
OTHER = "other responses"


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
        parts = [f"{self.counts[kind]} {kind}" for kind in (REJECTED, DISCONNECTED, OTHER) if self.counts[kind]]
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
    return OTHER


async def _disturb_under_load(service: Service, disturb: Callable[[], object]) -> Responses:
    """Calls ``disturb`` in a thread and keeps up the load until no request has failed for CALM_S."""
    responses, stopped = Responses(), False
    load = asyncio.create_task(_send_requests(service, responses, lambda: stopped))
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


@contextlib.contextmanager
def _service(workspace: Workspace, settings: str) -> Iterator[Service]:
    folder = workspace.new_folder()
    (folder / "serve.yaml").write_text(settings)
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(workspace.models, folder / "home", folder / "stderr", *config) as service:
        yield service


def kill_process(workspace: Workspace, process: bytes, allowed: set[str], settings: str = TWO_REPLICAS) -> str:
    """Serves a model and kills a process under load; what became of the requests.

    Args:
        process: words of the command line of the process.
        allowed: the ways in which requests may fail.
    """
    with _service(workspace, settings) as service:
        return kill_process_of(service, process, allowed)


def kill_process_of(service: Service, process: bytes, allowed: set[str]) -> str:
    """Kills a process of a running service under load, see :func:`kill_process`."""

    def kill() -> None:
        victims = service.pids(process)
        ensure(victims, f"no process matches {process.decode()}")
        os.kill(victims[0], signal.SIGKILL)

    responses = asyncio.run(_disturb_under_load(service, kill))
    ensure(set(responses.counts) <= allowed | {ANSWERED}, f"{responses.summary()} {responses.other}")
    ensure(service.process.poll() is None, "the service ended")
    ensure(service.pids(process), "the process was not started again")
    return responses.summary()


def redeploy(workspace: Workspace) -> str:
    """Deploys another configuration under load, which replaces both replicas, then one with a single replica."""
    with _service(workspace, TWO_REPLICAS) as service:
        (raylet,) = service.pids(b"raylet/raylet\0")
        address = re.search(rb"--gcs-address=([\w.:]+)", Path(f"/proc/{raylet}/cmdline").read_bytes())
        ensure(address, "the address of the private Ray is not in the raylet's command line")
        assert address
        variables = dict(entry.partition("=")[::2] for entry in Path(f"/proc/{raylet}/environ").read_text().split("\0"))

        def deploy() -> None:
            for settings in (TWO_REPLICAS.replace("max_batch_size: 2", "max_batch_size: 4"), ONE_REPLICA):
                arguments = [str(service.models), settings, address[1].decode()]
                done = subprocess.run(
                    [sys.executable, "-c", REDEPLOY, *arguments], env=variables, capture_output=True, text=True
                )
                ensure(done.returncode == 0, f"the deployment failed: {done.stderr[-500:]}")

        before = set(service.pids(REPLICA))
        responses = asyncio.run(_disturb_under_load(service, deploy))
        ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
        after = set(service.pids(REPLICA))
        ensure(len(after) == 1 and after.isdisjoint(before), f"replicas {before} became {after}")
    return responses.summary()


def kill_head(workspace: Workspace) -> str:
    """Kills the control store of the service's Ray; how the service ends, and that nothing is left."""
    with _service(workspace, ONE_REPLICA) as service:
        (store,) = service.pids(b"gcs_server\0")
        os.kill(store, signal.SIGKILL)
        started = time.monotonic()
        while service.process.poll() is None and time.monotonic() - started < HEAD_LOST_S:
            time.sleep(0.2)
        ensure(service.process.poll() is not None, f"the service still ran {HEAD_LOST_S} s later")
        ended_s = time.monotonic() - started
        ensure(service.process.returncode != 0, "the service ended with exit code 0")
        count = _wait_until_nothing_is_left(service, started)
    return f"the service ended {ended_s:.0f} s after the fault, with an error; {count}"


def kill_driver(workspace: Workspace) -> str:
    """Kills the driver of the service and checks that no process is left and the port is free."""
    with _service(workspace, ONE_REPLICA) as service:
        count, started = len(marked(service.mark)), time.monotonic()
        service.process.kill()
        left = _wait_until_nothing_is_left(service, started)
    return f"the service; of its {count} processes {left}"


def _wait_until_nothing_is_left(service: Service, since: float) -> str:
    while (left := marked(service.mark)) and time.monotonic() - since < PROCESSES_END_S:
        time.sleep(0.2)
    took_s = time.monotonic() - since
    names = [Path(f"/proc/{pid}/cmdline").read_bytes()[:80] for pid in left if Path(f"/proc/{pid}").exists()]
    ensure(not names, f"still running {PROCESSES_END_S} s later: {names}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", service.port))
    return f"none was left after {took_s:.0f} s, and the port was free"


SERVING = (
    Fault(
        name="a replica is killed under load",
        promise="no response is lost: HAProxy sends its requests to another replica",
        cause="SIGKILL to one of two replicas, each of which reads requests and runs the model",
        checks="every response, and that a new replica starts",
        run=partial(kill_process, process=REPLICA, allowed=set()),
        tested_by="tests/serve/test_load.py",
    ),
    Fault(
        name="the only replica is killed under load",
        promise="its current requests are rejected with 503 and Retry-After, or disconnected; later ones wait for "
        "a new replica",
        cause="SIGKILL to the only replica",
        checks="every response, and that a new replica starts",
        run=partial(kill_process, process=REPLICA, allowed={REJECTED, DISCONNECTED}, settings=ONE_REPLICA),
    ),
    Fault(
        name="a detector replica is killed under load",
        promise="no response is lost: its requests go to another replica or are rejected with 503 and Retry-After",
        cause="SIGKILL to the replica that holds the model, in the layout for GPUs",
        checks="every response, and that a new replica starts",
        run=partial(kill_process, process=b"ServeReplica:detector:Detector", allowed={REJECTED}, settings=APART),
    ),
    Fault(
        name="HAProxy is killed under load",
        promise="clients are disconnected; another HAProxy listens within a quarter of a minute",
        cause="SIGKILL to the process that listens on the port",
        checks="every response, and how long the service was unreachable",
        run=partial(kill_process, process=HAPROXY, allowed={REJECTED, DISCONNECTED}),
        tested_by="tests/serve/test_load.py",
    ),
    Fault(
        name="the manager of HAProxy is killed under load",
        promise="HAProxy ends with it, so that another one can listen within a quarter of a minute",
        cause="SIGKILL to the actor that starts HAProxy",
        checks="every response, and how long the service was unreachable",
        run=partial(kill_process, process=b"HAProxyManager", allowed={REJECTED, DISCONNECTED}),
    ),
    Fault(
        name="the Serve controller is killed under load",
        promise="no response is lost",
        cause="SIGKILL to the process that starts and scales replicas",
        checks="every response, and that a new controller starts",
        run=partial(kill_process, process=b"ServeController", allowed=set()),
    ),
    Fault(
        name="another configuration is deployed under load",
        promise="no response is lost while both replicas are replaced, and while the second one is stopped",
        cause="two deployments, the second with one replica less",
        checks="every response, and that none of the replicas is one of before",
        run=redeploy,
    ),
    Fault(
        name="the service's control store (GCS) is killed",
        promise="the service ends with an error, so that systemd or Kubernetes can start it again; no process is left",
        cause="SIGKILL to gcs_server",
        checks="the exit code, its processes and its port",
        run=kill_head,
    ),
    Fault(
        name="the service's driver is killed",
        promise="no process is left behind",
        cause="SIGKILL to python -m jobs.serve",
        checks="its processes and its port",
        run=kill_driver,
    ),
)
