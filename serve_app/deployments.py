"""The deployments: an ingress that reads uploads and finds faces, and runs the model itself or asks a detector.

On CPUs each ingress runs the model (``layout: together``): a crop need not travel to another process. On GPUs, which
are few, ingresses and detectors scale independently, each by its own queue (``layout: apart``). An ingress predicts a
bounded number of images at a time and refuses further ones at once. A prediction has no side effects, so if a detector
dies, its images are sent once more to another one; if an ingress dies, HAProxy sends its requests to another one.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector_core.evaluation.drift import ScoreDrift
from detector_core.images import faces
from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor, blank_image, describe
from serve_app import front
from serve_app.batching import Batcher
from serve_app.canary import CanaryRouter, Candidate, CandidatePredictor, NotLoaded
from serve_app.errors import Busy, Unavailable
from serve_app.health import ForwardPassMonitor
from serve_app.live_model import LiveModel, poll
from serve_app.metrics import CanaryMetrics, ModelMetrics, RequestMetrics
from serve_app.model_schemas import searches_faces
from serve_app.routes import create_app
from serve_app.service import DetectionService
from serve_app.settings import Settings

CONCURRENT_EXPLANATIONS = 2
"""Most heat maps at a time, per detector and per ingress, so that they do not delay predictions."""
RESTARTING = "the model is being restarted: try again in a moment"
RESTART_S = 5
REQUEST_ID = b"x-request-id"
_log = logging.getLogger("ray.serve")


class Model:
    """Predicts the images of concurrent requests in batches."""

    def __init__(self, settings: Settings) -> None:
        threads = settings.threads or int(settings.detector_cpus) or (os.cpu_count() or 1)
        device = "cuda" if settings.detector_gpus else "cpu"

        def load(folder: Path) -> Predictor:
            return Predictor(folder, batch_size=settings.max_batch_size, device=device, threads=threads, passes=threads)

        self._metrics, self._passes = ModelMetrics(), ForwardPassMonitor()
        self._live = LiveModel(settings, load, lambda loaded: self._metrics.behind.set(0 if loaded else 1))
        self._candidate: Candidate[CandidatePredictor] | None = None
        if settings.models:
            self._candidate = Candidate(settings.models, lambda folder: CandidatePredictor(load(folder), settings))
            poll(self._candidate.update, settings.poll_s)
        self._explaining = asyncio.Semaphore(CONCURRENT_EXPLANATIONS)
        self._drift_of, self._drift = "", ScoreDrift(None)
        self._batcher = Batcher(
            self._predict,
            passes=lambda: self._live.current.passes,
            max_size=settings.max_batch_size,
            wait_s=settings.batch_wait_s,
        )

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """Predicts one image, together with those of other requests."""
        prediction = await self._batcher.run(image_SSC)
        if prediction.model.version != self._drift_of:
            self._drift_of, self._drift = prediction.model.version, ScoreDrift(prediction.model.score_histogram)
            self._metrics.drift.set(0)
        if self._drift.add(prediction.p_fake):
            self._metrics.drift.set(self._drift.index)
        return prediction

    def _predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        started = time.perf_counter()
        with self._passes.track():
            predictions = self._live.current.predict(images)
        self._metrics.record_batch(len(images), time.perf_counter() - started)
        return predictions

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica after three failures. Computes nothing while passes succeed."""
        self._metrics.behind.refresh()
        self._metrics.drift.refresh()
        predictor = self._live.current
        await asyncio.to_thread(self._passes.check, lambda: predictor.predict([blank_image(predictor.info)]))

    async def model_info(self) -> ModelInfo:
        """Describes the model that answers."""
        return self._live.current.info

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """Returns heat_SS: the evidence in an image for a label."""
        async with self._explaining:
            return await asyncio.to_thread(self._live.current.explain, image_SSC, toward)

    async def predict_as_candidate(self, image_SSC: Pixels) -> Prediction | None:
        """As :meth:`predict`, by the candidate of a canary; None if none is loaded here."""
        candidate = self._candidate and self._candidate.current
        return await candidate.batcher.run(image_SSC) if candidate else None

    async def explain_as_candidate(self, image_SSC: Pixels, toward: str) -> Heat | None:
        """As :meth:`explain`, by the candidate of a canary; None if none is loaded here."""
        candidate = self._candidate and self._candidate.current
        if not candidate:
            return None
        async with self._explaining:
            return await asyncio.to_thread(candidate.predictor.explain, image_SSC, toward)


Detector = cast("serve.Deployment", serve.deployment(Model, name="Detector"))  # its type hints cover decorators only


class ServeAdapter:
    """Evens out two differences between Ray Serve and ASGI.

    Serve raises TaskCancelledError where ASGI sends ``http.disconnect``, and its proxy adds X-Request-ID to an answer
    that already has one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        added_by_proxy = [(name, value) for name, value in scope.get("headers", []) if name.lower() == REQUEST_ID]

        async def send_without_duplicate(message: Message) -> None:
            if message["type"] == "http.response.start":  # the proxy adds these again
                headers = message["headers"]
                kept = [(name, value) for name, value in headers if (name.lower(), value) not in added_by_proxy]
                message = {**message, "headers": kept}
            await send(message)

        async def receive_or_disconnect() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, receive_or_disconnect, send_without_duplicate)


class BoundedModelClient:
    """The model client of one ingress: sends a bounded number of images at a time. Raises Unavailable.

    Args:
        model: a handle to the detectors, or the model itself if there are none.
        on_change: called with the number of images that are waiting for an answer.
    """

    def __init__(
        self, model: "DeploymentHandle[Any] | Model", settings: Settings, on_change: Callable[[int], None]
    ) -> None:
        self._model, self._settings, self._on_change = model, settings, on_change
        self._waiting, self._explaining = 0, asyncio.Semaphore(CONCURRENT_EXPLANATIONS)
        self._info: ModelInfo | None = None
        self._info_expires, self._info_lock = 0.0, asyncio.Lock()

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """Predicts one image of the model's size."""
        prediction: Prediction = await self._call_counted("predict", image_SSC)
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """Returns heat_SS. Raises BadConfig if the network has no feature maps."""
        async with self._explaining:
            heat: Heat = await self._call_counted("explain", image_SSC, toward)
        return heat

    async def model_info(self) -> ModelInfo:
        """Describes the model of one detector, which may still be the previous one shortly after a promotion.

        Concurrent callers share one call, which does not count as an image.
        """
        try:
            async with asyncio.timeout(RESTART_S), self._info_lock:
                if self._info is None or time.monotonic() > self._info_expires:
                    self._info = await self._call("model_info")
                    self._info_expires = time.monotonic() + self._settings.poll_s
                return self._info
        except TimeoutError:
            raise Unavailable(RESTARTING, retry_after_s=RESTART_S) from None

    async def _call_counted(self, method: str, *arguments: object) -> Any:
        if self._waiting >= self._settings.max_queued:
            raise Busy
        self._count(+1)
        try:
            return await self._call(method, *arguments)
        finally:
            self._count(-1)

    async def _call(self, method: str, *arguments: object) -> Any:
        for retry in (True, False):
            try:
                if isinstance(self._model, Model):
                    return await getattr(self._model, method)(*arguments)
                return await getattr(self._model, method).remote(*arguments)
            except (RayActorError, DeploymentUnavailableError):
                if not retry:
                    raise Unavailable(RESTARTING, retry_after_s=RESTART_S) from None
        raise AssertionError("unreachable")

    def _count(self, change: int) -> None:
        self._waiting += change
        self._on_change(self._waiting)


class CandidateClient(BoundedModelClient):
    """Asks the candidate of a canary, whose images wait apart from those of the live version. Raises NotLoaded, too."""

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """Predicts one image of the model's size."""
        prediction: Prediction | None = await self._call_counted("predict_as_candidate", image_SSC)
        if prediction is None:
            raise NotLoaded
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """Returns heat_SS. Raises BadConfig if the network has no feature maps."""
        heat: Heat | None = await self._call_counted("explain_as_candidate", image_SSC, toward)
        if heat is None:
            raise NotLoaded
        return heat


@serve.deployment
@serve.ingress()
class Ingress:
    """Reads, checks and decodes uploads, and answers over HTTP; runs the model itself if there is no detector."""

    def __init__(self, detector: "DeploymentHandle[Any] | None", settings: Settings) -> None:
        self._settings = settings
        here, wanted = front.of_this_process(), settings.front_limits()
        if settings.front.proxy == "haproxy" and here != wanted:
            _log.warning("%s (docs/operate.md#haproxy-on-a-cluster)", front.difference(here, wanted))
        self._model: DeploymentHandle[Any] | Model = detector or Model(settings)
        self._canary_metrics: CanaryMetrics | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        live = LiveModel(self._settings, describe)
        if searches_faces(self._settings.http.faces, live.current):
            faces.warm_up()  # the first request should not wait for it
        self._metrics = RequestMetrics()
        client = BoundedModelClient(self._model, self._settings, self._metrics.waiting.set)
        app = create_app(client, lambda: live.current, self._settings.http, self._metrics.observe, self._route_canary())
        self._service: DetectionService = app.state.service
        app.add_middleware(ServeAdapter)
        return app

    def _route_canary(self) -> CanaryRouter | None:
        if not self._settings.models:
            return None
        self._canary_metrics = CanaryMetrics()
        router = CanaryRouter(
            self._settings.models,
            CandidateClient(self._model, self._settings, lambda _: None),
            self._canary_metrics.compared,
            self._canary_metrics.follow,
        )
        poll(router.update, self._settings.poll_s)
        return router

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that is stuck; checks the model if it is in this process."""
        self._metrics.waiting.refresh()
        if self._canary_metrics:
            self._canary_metrics.failed.refresh()
        self._service.check_decoding()
        if isinstance(self._model, Model):
            await self._model.check_health()
