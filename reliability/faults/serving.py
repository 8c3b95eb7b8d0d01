"""The faults of the service: each of its processes is killed under load, and every response is checked."""

import asyncio
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

from reliability.faults.actions import kill_head_node
from reliability.faults.fault import Fault, Workspace, ensure
from reliability.faults.load import (
    ANSWERED,
    APART,
    DISCONNECTED,
    ONE_REPLICA,
    REJECTED,
    REPLICA,
    TWO_REPLICAS,
    disturb_under_load,
    serving,
)
from tests.support.serving import Service, marked

HAPROXY = b"/haproxy\0-db\0"
PROCESSES_END_S, HEAD_LOST_S = 180, 80
"""Ray's agents wait a minute for the control store, after the raylet has waited as long."""


def kill_process(workspace: Workspace, process: bytes, allowed: set[str], settings: str = TWO_REPLICAS) -> str:
    """Serves a model and kills a process under load; what became of the requests.

    Args:
        process: words of the command line of the process.
        allowed: the ways in which requests may fail.
    """
    with serving(workspace, settings) as service:
        return kill_process_of(service, process, allowed)


def kill_process_of(service: Service, process: bytes, allowed: set[str]) -> str:
    """Kills a process of a running service under load, see :func:`kill_process`."""

    def kill() -> None:
        victims = service.pids(process)
        ensure(victims, f"no process matches {process.decode()}")
        os.kill(victims[0], signal.SIGKILL)

    responses = asyncio.run(disturb_under_load(service, kill))
    ensure(set(responses.counts) <= allowed | {ANSWERED}, f"{responses.summary()} {responses.other}")
    ensure(service.process.poll() is None, "the service ended")
    ensure(service.pids(process), "the process was not started again")
    return responses.summary()


def kill_head(workspace: Workspace) -> str:
    """Kills the control store of the service's Ray; how the service ends, and that nothing is left."""
    with serving(workspace, ONE_REPLICA) as service:
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
    with serving(workspace, ONE_REPLICA) as service:
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
        name="the service's control store (GCS) is killed",
        promise="the service ends with an error, so that systemd or Kubernetes can start it again; no process is left",
        cause="SIGKILL to gcs_server",
        checks="the exit code, its processes and its port",
        run=kill_head,
    ),
    Fault(
        name="the head node of a cluster is killed under load, with its state in Redis",
        promise="the replicas on other hosts go on: no response is lost, and a new head takes over from Redis",
        cause="SIGKILL to every process of the head, one of three simulated hosts; clients send to the other two",
        checks="every response, that the replicas stay, follow a promotion without a head, and obey the new one",
        run=kill_head_node,
    ),
    Fault(
        name="the service's driver is killed",
        promise="no process is left behind",
        cause="SIGKILL to python -m jobs.serve",
        checks="its processes and its port",
        run=kill_driver,
    ),
)
