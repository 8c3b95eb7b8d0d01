"""The service on Ray Serve: an ingress that reads and decodes images, a detector that judges them in batches.

  serve run serve_app.app:build models=/srv/models         the live model of MODELS
  serve deploy serve_app/config.yaml                       the same on a cluster, see the file

:func:`serving` is what ``python -m serve_app`` does. What the replicas do is in ``deployments``.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray._private.state import state as ray_state

from detector_core import errors, storage
from detector_core.errors import BrokenArtifact, DetectorError, NoRoom, first_line
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from serve_app.deployments import Detector, Ingress
from serve_app.settings import Scale, Settings

__all__ = ["Settings", "build", "serving"]

NAME = "detector"
OBJECT_STORE_BYTES = 400 * 2**20
INLINE_BYTES = 2**20
"""A square travels within the call, not through the object store: 150 KB at 224 pixels."""
SURGE_PERCENT = 100
"""A replica is stopped for a new one only once that one answers."""
REQUEST_LIMIT_S = 60
"""Of Ray's proxy; ``http.timeout_s`` ends a request before, with an answer of ours."""
LOOK_BACK_S = 12
"""The load is averaged over this; Ray wants more than the 10 s at which replicas tell it by default."""
TOO_BUSY = "this machine is too busy"
PREFIX = f"{errors.__name__}."
"""Of the names of our errors in the traceback that a replica leaves."""
LOGS = {"encoding": "JSON", "enable_access_log": False}


def build(settings: Settings) -> serve.Application:
    """The application. Every replica follows the live model by itself (:mod:`serve_app.live_model`).

    Raises:
        BadConfig: no model, or two, were named; nothing was promoted.
        BrokenArtifact: the folder is not a whole model.
    """
    settings.check()
    changes = {name: storage.absolute(str(getattr(settings, name))) for name in ("model", "models")}
    settings = settings.model_copy(update={name: where for name, where in changes.items() if getattr(settings, name)})
    describe(artifacts.find(settings.model) if settings.model else versions.live(str(settings.models)))
    together = settings.layout == "together"
    return Ingress.options(
        **_scaled(settings.detectors if together else settings.ingresses),
        ray_actor_options=_judging(settings) if together else {"num_cpus": settings.ingress_cpus},
        # The ingress itself refuses what is beyond http.max_open, in the form of every other error.
        max_ongoing_requests=2 * settings.http.max_open,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        max_queued_requests=settings.http.max_open,
    ).bind(None if together else _detector(settings), settings)


def _detector(settings: Settings) -> serve.Application:
    return Detector.options(
        **_scaled(settings.detectors),
        ray_actor_options=_judging(settings),
        # All that the ingresses may ask, each for its images and once for the model's name: the batches are filled
        # from a queue in the replica. A lower bound would leave images with Serve's router, which looks for a free
        # replica at growing intervals.
        max_ongoing_requests=(max(settings.max_queued, settings.max_batch_size) + 1) * settings.ingresses.max_replicas,
    ).bind(settings)


def _judging(settings: Settings) -> dict[str, float]:
    return {"num_cpus": settings.detector_cpus, "num_gpus": settings.detector_gpus}


def _scaled(scale: Scale) -> dict[str, Any]:
    return {
        "autoscaling_config": {**scale.model_dump(), "look_back_period_s": LOOK_BACK_S},
        "max_surge_percent": SURGE_PERCENT,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": 5.0,
        "logging_config": LOGS,
    }


@contextmanager
def serving(settings: Settings, *, host: str, port: int, dashboard_port: int | None) -> Iterator[str]:
    """Serves for the length of a ``with`` block, on a private Ray or on the one at ``RAY_ADDRESS``.

    Yields:
        The URL of the Ray dashboard; empty where there is none.

    Raises:
        NoRoom: this Ray has too few cores, or none answers.
        DetectorError: a replica did not start.
    """
    shared = bool(os.environ.get("RAY_ADDRESS"))
    private: dict[str, Any] = {
        "address": "local",  # and not one of `ray start` that happens to run here
        "include_dashboard": True,
        "dashboard_port": dashboard_port,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_system_config": {"max_direct_call_object_size": INLINE_BYTES},
    }
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    application = build(settings)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(logging_level="warning", log_to_driver=False, **({} if shared else private))
    except ConnectionError as error:
        raise NoRoom(f"no Ray answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
    except Exception as error:
        # Ray raises a bare Exception when its processes do not come up within 30 s.
        if "timed out" not in str(error):
            raise
        raise NoRoom(f"Ray did not start in time, {TOO_BUSY}: {first_line(error)}") from None
    started = False
    try:
        signal.signal(signal.SIGTERM, on_term)  # ray.init puts its own in place, which exits with another code
        _check_room(settings)
        http = {"host": host, "port": port, "request_timeout_s": REQUEST_LIMIT_S}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=LOGS)
        started = True
        try:
            serve.run(application, name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise DetectorError(f"Ray Serve could not start the service: {error}{_why()}") from None
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        if not shared:
            serve.shutdown()
        elif started:  # others may be serving there too
            serve.delete(NAME)
        ray.shutdown()


def _why() -> str:
    """What a replica said when it could not start, and what to do; empty if none said anything."""
    application = serve.status().applications.get(NAME)
    deployments = application.deployments.values() if application else ()
    lines = [line for one in deployments for line in one.message.splitlines()]
    _, found, said = next((line for line in reversed(lines) if PREFIX in line), "").rpartition(PREFIX)
    back = " (jobs.promote --rollback goes back a version)" if said.startswith(BrokenArtifact.__name__) else ""
    return f"; {said.strip()}{back}" if found else ""


def _check_room(settings: Settings) -> None:
    """Serve would wait for ever where the autoscaler of the cluster, if it has one, may not add what is missing."""
    has, may_have = ray.cluster_resources(), ray_state.get_max_resources_from_cluster_config() or {}
    for name, amount in settings.least().items():
        now = has.get(name, 0)
        if amount > max(now, may_have.get(name, 0)):
            raise NoRoom(f"the service needs {amount:g} {name}, and this Ray has {now:g}: ask for less, or add nodes")
        if amount > now:
            print(f"the service needs {amount:g} {name}, this Ray has {now:g}: waiting for nodes", file=sys.stderr)
