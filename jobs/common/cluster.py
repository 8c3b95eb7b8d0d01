"""A Ray to run on: the cluster that ``RAY_ADDRESS`` or ``ray job submit`` gives, else one on this machine alone."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray._private import services
from ray._private.state import state as ray_state

from detector_core.errors import BadConfig, LostRay, NoRoom, first_line
from jobs.common import cli
from jobs.common.cli import GO_ON, say, waiting_for

OBJECT_STORE_BYTES = 400 * 2**20
START_ATTEMPTS = 3
LOOK_EVERY_S, HEAD_GONE_S = 2.0, 45.0
BROKE_DOWN = (
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
)
"""What a dead node, or a dead process of ours on one, raises in whoever asked it; a bug in a task is none of these."""


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[None]:
    """Connects to Ray, or starts a private one, for the length of a ``with`` block.

    A job whose Ray is lost ends: with an error from within the block where Ray raises one, else by itself.

    Raises:
        NoRoom: no Ray answers at ``RAY_ADDRESS``.
        LostRay: Ray broke down under the job.
        BadConfig: the Ray there has another version, or another Python.
    """
    shared = bool(os.environ.get("RAY_ADDRESS"))
    start: dict[str, Any] = {}
    if not shared:
        start = {"address": "local", "include_dashboard": dashboard, "object_store_memory": OBJECT_STORE_BYTES}
        if another := services.find_bootstrap_address(None):
            say(f"a Ray of its own for this job: set RAY_ADDRESS={another} to use the one that runs on this machine")
    on_term = signal.getsignal(signal.SIGTERM)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Workers speak to people through the board and their errors, not through copied log lines.
            with waiting_for("Ray to answer" if shared else "Ray to start"):
                context = ray.init(logging_level="warning", log_to_driver=False, **start)
            break
        except ConnectionError as error:
            raise NoRoom(f"no Ray answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
        except Exception as error:
            if "Version mismatch" in str(error):
                raise BadConfig(_versions(str(error))) from None
            # Ray raises a bare Exception when its processes do not come up within its fixed 30 s.
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if attempt == START_ATTEMPTS:
                raise NoRoom(f"Ray did not start in {attempt} attempts of 30 s: this machine is too busy") from None
            say(f"Ray did not start within 30 s, this machine is busy: attempt {attempt + 1} of {START_ATTEMPTS}")
    signal.signal(signal.SIGTERM, on_term)  # ray.init puts its own in place, which exits without a word
    if dashboard and context.dashboard_url:
        token = "" if shared else os.environ.get("RAY_AUTH_TOKEN", "")
        say(f"Ray dashboard: http://{context.dashboard_url}" + (f" (it asks for this token: {token})" if token else ""))
    ended = threading.Event()
    threading.Thread(
        target=_watch, args=(ray.get_runtime_context().gcs_address, ended), name="head", daemon=True
    ).start()
    try:
        yield
    except ray.exceptions.OutOfMemoryError:
        raise LostRay(f"Ray ended this job for want of memory: free some, or ask for fewer workers; {GO_ON}") from None
    except BROKE_DOWN as error:
        raise LostRay(f"Ray broke down under the job ({first_line(error)}): {GO_ON}") from None
    finally:
        ended.set()
        ray.shutdown()


def _watch(head: str, ended: threading.Event) -> None:
    """Ends this process when the head has not answered for HEAD_GONE_S; Ray does after a minute, in its own words."""
    host, _, port = head.rpartition(":")
    answered = time.monotonic()
    while not ended.wait(LOOK_EVERY_S):
        try:
            socket.create_connection((host, int(port)), timeout=LOOK_EVERY_S).close()
            answered = time.monotonic()
        except OSError:
            if time.monotonic() - answered > HEAD_GONE_S:
                # Nothing that asks Ray, the end of the block neither, would come back.
                cli.end(f"the head of Ray at {head} is gone: {GO_ON}")


def _versions(message: str) -> str:
    """Ray's four lines about versions as one that says what to do."""
    words = " ".join(message.removeprefix("Version mismatch:").split())
    return f"{words}: use one locked environment everywhere (uv sync --locked), or send the job with ray job submit"


def could_have() -> dict[str, float]:
    """Cores, GPUs and the rest of this Ray when its autoscaler has added all the nodes it may; now, without one."""
    has: dict[str, float] = dict(ray.cluster_resources())
    for name, most in (ray_state.get_max_resources_from_cluster_config() or {}).items():
        has[name] = max(has.get(name, 0), most)
    return has


def check_room(*, cpus: float, gpus: float = 0, purpose: str) -> None:
    """Fails at once where Ray would wait for ever, and says it where the autoscaler is waited for.

    Call inside :func:`connect`.

    Raises:
        NoRoom: the cluster as a whole has fewer cores or GPUs than asked, with all nodes that it may add.
    """
    has, most = ray.cluster_resources(), could_have()
    for name, asked in (("GPU", gpus), ("CPU", cpus)):
        now, later = has.get(name, 0), most.get(name, 0)
        if asked > later:
            grows = f", and {later:g} with every node it may add" if later > now else ""
            raise NoRoom(
                f"{purpose} needs {asked:g} {name}, and this Ray has {now:g}{grows}: "
                f"ask for less (a job says how in its --help), or add nodes to the cluster"
            )
        if asked > now:
            say(f"{purpose} needs {asked:g} {name}, this Ray has {now:g}: waiting for its autoscaler to add nodes")
