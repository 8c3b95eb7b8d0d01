"""Connects to Ray: the cluster that ``RAY_ADDRESS`` or ``ray job submit`` names, else a private Ray cluster on this
machine.

This is the only module that starts Ray. Jobs and ``jobs.serve`` differ only in the :class:`PrivateRay` they ask for.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from detector_core.errors import BadConfig, ClusterLost, DetectorError, InsufficientResources, first_line
from jobs.common import cli, ray_environment, ray_internals, temporary_folder
from jobs.common.cli import RESUME_HINT, say

OBJECT_STORE_BYTES = 400 * 2**20
START_ATTEMPTS = 3
CHECK_EVERY_S, HEAD_LOST_S = 2.0, 45.0
ANSWER_S = 5.0
"""Time for the head node at RAY_ADDRESS to accept a connection."""
RAY_FAILURES = (
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
)
"""What a caller gets when a node or one of our processes on it dies. A bug in a task raises none of these."""


@dataclass(frozen=True, kw_only=True)
class PrivateRay:
    """How a private Ray cluster is started. A shared Ray cluster is used as it is.

    Attributes:
        dashboard_port: None means the first free one.
        system_config: internal settings of Ray, passed to ``ray.init`` as ``_system_config``.
    """

    dashboard: bool = False
    dashboard_port: int | None = None
    system_config: dict[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The arguments of ``ray.init``."""
        return {
            "address": "local",  # without it, ray.init joins a Ray cluster that `ray start` started on this machine
            "include_dashboard": self.dashboard,
            "dashboard_port": self.dashboard_port,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_system_config": self.system_config,
        }


@contextmanager
def start(private: PrivateRay) -> Iterator[str]:
    """Connects to Ray, or starts a private one, for the duration of a ``with`` block.

    Yields:
        The URL of the Ray dashboard; empty if there is none.

    Raises:
        InsufficientResources: no Ray cluster answers at ``RAY_ADDRESS``, or a private one does not start.
        BadConfig: RAY_ADDRESS is no address, the cluster there runs another version of Ray or Python, or a private one
            cannot use its folder for temporary files.
    """
    shared = bool(os.environ.get("RAY_ADDRESS"))
    if shared:
        _check_answers(os.environ["RAY_ADDRESS"])
    if not shared and (address := ray_internals.running_ray_address()):
        say(
            "starting a private Ray cluster; to use the one that already runs on this machine, set "
            f"RAY_ADDRESS={address}"
        )
    if not shared:
        temporary_folder.check(OBJECT_STORE_BYTES)
    on_term = signal.getsignal(signal.SIGTERM)
    context = _init({} if shared else private.options())
    signal.signal(signal.SIGTERM, on_term)  # ray.init installs a handler that exits without a message
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        ray.shutdown()


def _init(options: dict[str, Any]) -> Any:
    """Calls ``ray.init``, again if the machine is too busy at first, and turns its errors into ours."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with cli.waiting_for("Ray to start"):
                # Users see our own progress messages and errors instead of log lines copied from workers.
                return ray.init(logging_level=logging.WARNING, log_to_driver=False, **options)
        except ConnectionError as error:
            raise InsufficientResources(
                f"no Ray cluster answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}"
            ) from None
        except Exception as error:
            if "Version mismatch" in str(error):
                raise BadConfig(_version_message(str(error))) from None
            # Ray raises a bare Exception if its processes do not start within its fixed limit of 30 s.
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if not options:
                where = f"the Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}"
                raise InsufficientResources(f"{where} accepts connections, but does not answer: restart it") from None
            if attempt == START_ATTEMPTS:
                message = f"Ray did not start in {attempt} attempts of 30 s: this machine is too busy"
                raise InsufficientResources(f"{message} ({first_line(error)})") from None
            say(f"Ray did not start within 30 s, this machine is busy: attempt {attempt + 1} of {START_ATTEMPTS}")
    raise AssertionError("unreachable")


def _check_answers(address: str) -> None:
    """Fails within ANSWER_S if nobody listens at RAY_ADDRESS, where Ray itself would try for minutes.

    Raises:
        BadConfig: it is no address.
        InsufficientResources: nobody listens there.
    """
    if address in ("auto", "local"):
        return
    try:
        endpoint = _endpoint(address.removeprefix("ray://"))
    except ValueError:
        raise BadConfig(
            f"RAY_ADDRESS={address} is not HOST:PORT, such as 10.0.0.1:6379: set that of the head node, or unset "
            "RAY_ADDRESS to start a private Ray cluster"
        ) from None
    try:
        socket.create_connection(endpoint, timeout=ANSWER_S).close()
    except OSError as error:
        raise InsufficientResources(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}): correct it, start Ray "
            "there, or unset RAY_ADDRESS to start a private Ray cluster"
        ) from None


def _endpoint(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; that of IPv6 has brackets there, and none in a call. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or "/" in host or (":" in host and not host.startswith("[")):
        raise ValueError(address)
    if not 0 < int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)


def original_error(error: ray.exceptions.RayTaskError) -> BaseException:
    """The error that a task raised if it is one of ours or of the operating system, otherwise Ray's own error.

    Ray's error carries the traceback of the worker in its message, and a job prints one line.
    """
    cause: BaseException | None = error.cause
    return cause if isinstance(cause, DetectorError | OSError) else error


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[None]:
    """Runs a job on Ray for the duration of a ``with`` block.

    If Ray is lost, the job ends with ClusterLost; if no call to Ray returns any more, the process ends itself.

    Raises:
        InsufficientResources, BadConfig: see :func:`start`.
        ClusterLost: Ray failed under the job.
    """
    with start(PrivateRay(dashboard=dashboard)) as dashboard_url:
        if dashboard and dashboard_url:
            token = ray_environment.private_token()
            say(f"Ray dashboard: {dashboard_url}" + (f" (token: {token})" if token else ""))
        ended = threading.Event()
        head = ray.get_runtime_context().gcs_address
        threading.Thread(target=_watch_head, args=(head, ended), name="watch head", daemon=True).start()
        try:
            yield
        except ray.exceptions.OutOfMemoryError:
            raise ClusterLost(
                f"Ray ended this job because memory ran out: free memory or use fewer workers; {RESUME_HINT}"
            ) from None
        except RAY_FAILURES as error:
            raise ClusterLost(f"Ray failed under the job ({first_line(error)}): {RESUME_HINT}") from None
        finally:
            ended.set()


def _watch_head(head: str, ended: threading.Event) -> None:
    """Ends this process if the head node has not answered for HEAD_LOST_S.

    Ray itself would end the process after a minute, without a message that helps.
    """
    endpoint, answered = _endpoint(head), time.monotonic()
    while not ended.wait(CHECK_EVERY_S):
        try:
            socket.create_connection(endpoint, timeout=CHECK_EVERY_S).close()
            answered = time.monotonic()
        except OSError:
            if time.monotonic() - answered > HEAD_LOST_S:
                # No call to Ray would return any more, so the process cannot end in an orderly way.
                cli.exit_now(f"the Ray head node at {head} no longer answers: {RESUME_HINT}")


def _version_message(message: str) -> str:
    """Ray's multi-line version message as one line that says what to do."""
    mismatch = " ".join(message.removeprefix("Version mismatch:").split())
    return f"{mismatch}: use one locked environment everywhere (uv sync --locked), or send the job with ray job submit"


def maximum_resources() -> dict[str, float]:
    """The CPUs, GPUs and other resources of this Ray cluster, including every node that its autoscaler may add."""
    resources: dict[str, float] = dict(ray.cluster_resources())
    for name, limit in ray_internals.autoscaler_limits().items():
        resources[name] = max(resources.get(name, 0), limit)
    return resources


def check_resources(*, cpus: float, gpus: float = 0, purpose: str) -> None:
    """Fails at once if Ray would wait forever for resources; prints a message if it waits for its autoscaler.

    Call it inside :func:`start` or :func:`connect`.

    Raises:
        InsufficientResources: even with every node that may be added, the cluster has too few cores or GPUs.
    """
    present, most = ray.cluster_resources(), maximum_resources()
    for name, needed in (("GPU", gpus), ("CPU", cpus)):
        now, later = present.get(name, 0), most.get(name, 0)
        if needed > later:
            growth = f", and {later:g} with every node it may add" if later > now else ""
            raise InsufficientResources(
                f"{purpose} needs {needed:g} {name}, and this Ray cluster has {now:g}{growth}: "
                f"ask for less (see --help), or add nodes to the cluster"
            )
        if needed > now:
            say(
                f"{purpose} needs {needed:g} {name}, and this Ray cluster has {now:g}: waiting for its autoscaler to "
                "add nodes"
            )
