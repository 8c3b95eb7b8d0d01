"""The service on Ray Serve: an ingress that reads and decodes pictures, a detector that judges them in batches.

  serve run serve_app.app:build models=/srv/models         the live model of MODELS
  serve deploy serve_app/config.yaml                       the same on a cluster, see the file

The only file here that imports Ray. :func:`serving` is what ``python -m serve_app`` does.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from detector_core import artifacts, registry
from detector_core.errors import BadConfig, DetectorError, NoRoom
from detector_core.explain import Heat
from detector_core.pictures import Pixels
from detector_core.runtime import Prediction, Predictor, describe
from serve_app.http import Unavailable, create_app
from serve_app.schemas import HttpSettings, Limits

NAME = "detector"
OBJECT_STORE_BYTES = 400 * 2**20
BATCHES_AT_ONCE = 2
"""One in the model while the next one fills."""
TOO_BUSY = "this machine is too busy"


class Settings(BaseModel):
    """The arguments of :func:`build`: ``key=value`` of ``serve run``, ``args`` of ``serve deploy``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: str | None = Field(None, description="a folder that jobs.promote fills; its live model is served")
    model: str | None = Field(None, description="instead: one run or model folder")
    max_batch_size: int = Field(16, ge=1, description="most pictures of one forward pass")
    batch_wait_s: float = Field(0.005, ge=0, description="how long a batch waits to fill")
    max_queued: int = Field(64, ge=1, description="pictures that may wait for one ingress; beyond: 503")
    detectors: int = Field(1, ge=1, description="replicas that hold the model")
    detector_cpus: float = Field(0.9, ge=0, description="cores of each; with the ingress one core is enough")
    detector_gpus: float = Field(0, ge=0, description="GPUs of each; a fraction shares one")
    threads: int = Field(0, ge=0, description="threads of the network; 0: as many as cores, at least one")
    ingresses: int = Field(1, ge=1, description="replicas that read and decode")
    ingress_cpus: float = Field(0.1, ge=0)
    limits: Limits = Limits()


@serve.deployment
class Detector:
    """Holds the model; judges the pictures of concurrent requests together."""

    def __init__(self, folder: str, settings: Settings) -> None:
        torch.set_num_threads(settings.threads or max(1, int(settings.detector_cpus)))
        self._predictor = Predictor(
            folder, batch_size=settings.max_batch_size, device="cuda" if settings.detector_gpus else "cpu"
        )
        self.predict.set_max_batch_size(settings.max_batch_size)
        self.predict.set_batch_wait_timeout_s(settings.batch_wait_s)

    @serve.batch(max_concurrent_batches=1)
    async def predict(self, images: list[Pixels]) -> list[Prediction]:
        """One prediction a picture. In a thread, so that the next batch fills meanwhile."""
        return await asyncio.to_thread(self._predictor.predict, images)


@serve.deployment
@serve.ingress()
class Ingress:
    """Reads, checks and decodes; answers over HTTP."""

    def __init__(self, detector: DeploymentHandle, folder: str, settings: Settings) -> None:
        self._detector, self._folder, self._settings = detector, folder, settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        info = describe(self._folder)
        return create_app(self, lambda: info, HttpSettings(limits=self._settings.limits))

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:  # noqa: ARG002 -- of the interface
        raise BadConfig("heat maps are not served yet")

    async def predict(self, pixels_SSC: Pixels) -> Prediction:
        try:
            prediction: Prediction = await self._detector.predict.remote(pixels_SSC)
        except BackPressureError:
            raise Unavailable("too many pictures are waiting: try again in a moment") from None
        except (RayActorError, DeploymentUnavailableError):
            raise Unavailable("the model is being restarted: try again in a moment", retry_after_s=5) from None
        return prediction


def build(settings: Settings) -> serve.Application:
    """The application for one model, settled now: every replica serves the same until the next deployment.

    Raises:
        BadConfig: no model, or two, were named; nothing was promoted.
        BrokenArtifact: the folder is not a whole model.
    """
    if (settings.model is None) == (settings.models is None):
        raise BadConfig("name either models=FOLDER (its live model is served) or model=FOLDER")
    folder = artifacts.find(settings.model) if settings.model else registry.live(str(settings.models))
    folder = str(Path(folder).absolute())
    detector = Detector.options(
        num_replicas=settings.detectors,
        ray_actor_options={"num_cpus": settings.detector_cpus, "num_gpus": settings.detector_gpus},
        max_ongoing_requests=BATCHES_AT_ONCE * settings.max_batch_size,
        max_queued_requests=settings.max_queued,
        graceful_shutdown_wait_loop_s=0.2,
    ).bind(folder, settings)
    return Ingress.options(
        num_replicas=settings.ingresses,
        ray_actor_options={"num_cpus": settings.ingress_cpus},
        # The detector's queue decides what is too much; this one only bounds what a flood may hold in memory.
        max_ongoing_requests=settings.max_queued + 2 * BATCHES_AT_ONCE * settings.max_batch_size,
        max_queued_requests=settings.max_queued,
        graceful_shutdown_wait_loop_s=0.2,
    ).bind(detector, folder, settings)


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
        "include_dashboard": True,
        "dashboard_port": dashboard_port,
        "object_store_memory": OBJECT_STORE_BYTES,
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
        raise NoRoom(f"Ray did not start in time, {TOO_BUSY}: {str(error).splitlines()[0]}") from None
    try:
        signal.signal(signal.SIGTERM, on_term)  # ray.init puts its own in place, which exits with another code
        _check_room(settings)
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port, "request_timeout_s": 60})
        try:
            serve.run(application, name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise DetectorError(f"Ray Serve could not start the service: {error}") from None
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        # On a cluster others may be serving too.
        serve.delete(NAME) if shared else serve.shutdown()
        ray.shutdown()


def _check_room(settings: Settings) -> None:
    """Serve would wait for ever."""
    asked = {
        "CPU": settings.detectors * settings.detector_cpus + settings.ingresses * settings.ingress_cpus,
        "GPU": settings.detectors * settings.detector_gpus,
    }
    has = ray.cluster_resources()
    for name, amount in asked.items():
        if amount > has.get(name, 0):
            raise NoRoom(f"the service needs {amount:g} {name}, and this Ray has {has.get(name, 0):g}: ask for less")
