"""The two deployments: an ingress that reads, decodes and looks for faces, a detector that judges squares in batches.

They scale apart, each by what it has in hand. Each ingress asks about so many images at once; what comes on top is
refused at once. Judging changes nothing, so an image whose replica died is judged again by another, once. With
``layout: together`` each ingress judges by itself, and there is no detector.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector_core.images import faces
from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor, blank, describe
from serve_app.errors import Busy, Unavailable
from serve_app.health import Passes
from serve_app.live_model import Following
from serve_app.metrics import ModelMetrics, RequestMetrics
from serve_app.routes import create_app
from serve_app.schemas import looks_for_faces
from serve_app.settings import Settings

EXPLAINED_AT_ONCE = 2
"""Heat maps that a detector computes, and an ingress asks for, at once: they must not take the place of verdicts."""
RESTARTING = "the model is being restarted: try again in a moment"
RESTART_S = 5
ID = b"x-request-id"


class Model:
    """Judges the images of concurrent requests together."""

    def __init__(self, settings: Settings) -> None:
        threads = settings.threads or int(settings.detector_cpus) or (os.cpu_count() or 1)
        device = "cuda" if settings.detector_gpus else "cpu"
        self._metrics, self._passes = ModelMetrics(), Passes()
        self._following = Following(
            settings,
            lambda folder: Predictor(folder, batch_size=settings.max_batch_size, device=device, threads=threads),
            lambda taken: self._metrics.behind.set(0 if taken else 1),
        )
        self._explaining = asyncio.Semaphore(EXPLAINED_AT_ONCE)
        self.predict.set_max_batch_size(settings.max_batch_size)
        self.predict.set_batch_wait_timeout_s(settings.batch_wait_s)

    @serve.batch(max_concurrent_batches=1)
    async def predict(self, images: list[Pixels]) -> list[Prediction]:
        """One prediction an image. In a thread, so that the next batch fills meanwhile."""
        started = time.perf_counter()
        with self._passes.one():
            predictions = await asyncio.to_thread(self._following.current.predict, images)
        self._metrics.batch(images, time.perf_counter() - started)
        return predictions

    async def check_health(self) -> None:
        """Asked by Ray Serve, which replaces a replica that raises three times; costs nothing while passes succeed."""
        self._metrics.behind.again()
        predictor = self._following.current
        await asyncio.to_thread(self._passes.check, lambda: predictor.predict([blank(predictor.info)]))

    async def model_info(self) -> ModelInfo:
        """The model that answers."""
        return self._following.current.info

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """What in an image speaks for a label: heat_SS."""
        async with self._explaining:
            return await asyncio.to_thread(self._following.current.explain, image_SSC, toward)


Detector = serve.deployment(Model, name="Detector")


class _UnderServe:
    """What differs under Ray Serve: clients that leave, where Ray raises what ASGI says; a header it adds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxys = [(name, value) for name, value in scope.get("headers", []) if name.lower() == ID]

        async def send_what_proxy_does_not(message: Message) -> None:
            if message["type"] == "http.response.start":  # Serve's proxy adds the request's own id itself
                kept = [(name, value) for name, value in message["headers"] if (name.lower(), value) not in proxys]
                message = {**message, "headers": kept}
            await send(message)

        async def receive_or_leave() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, receive_or_leave, send_what_proxy_does_not)


class Asked:
    """The model, asked by one ingress: about so many images at once, and which it is. All raise Unavailable.

    Args:
        model: where there are no detectors.
        waiting: told of how many images no answer has come yet.
    """

    def __init__(self, model: DeploymentHandle | Model, settings: Settings, waiting: Callable[[int], None]) -> None:
        self._model, self._settings, self._tell = model, settings, waiting
        self._waiting, self._explaining = 0, asyncio.Semaphore(EXPLAINED_AT_ONCE)
        self._known: ModelInfo | None = None
        self._known_until, self._knowing = 0.0, asyncio.Lock()

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """One prediction."""
        prediction: Prediction = await self._judge("predict", image_SSC)
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """heat_SS. Raises BadConfig."""
        async with self._explaining:
            heat: Heat = await self._judge("explain", image_SSC, toward)
        return heat

    async def model_info(self) -> ModelInfo:
        """Of the detector that is asked, which may still have, or keep, the model before.

        One request asks for all, and takes no image's place.
        """
        try:
            async with asyncio.timeout(RESTART_S), self._knowing:
                if self._known is None or time.monotonic() > self._known_until:
                    self._known = await self._ask("model_info")
                    self._known_until = time.monotonic() + self._settings.follow_s
                return self._known
        except TimeoutError:
            raise Unavailable(RESTARTING, retry_after_s=RESTART_S) from None

    async def _judge(self, method: str, *arguments: object) -> Any:
        if self._waiting >= self._settings.max_queued:
            raise Busy
        self._count(+1)
        try:
            return await self._ask(method, *arguments)
        finally:
            self._count(-1)

    async def _ask(self, method: str, *arguments: object) -> Any:
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
        self._tell(self._waiting)


@serve.deployment
@serve.ingress()
class Ingress:
    """Reads, checks and decodes; answers over HTTP. Judges by itself where there is no detector to ask."""

    def __init__(self, detector: DeploymentHandle | None, settings: Settings) -> None:
        self._settings, self._model = settings, detector or Model(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        following = Following(self._settings, describe)
        if looks_for_faces(self._settings.http.faces, following.current):
            faces.warm_up()  # it takes seconds: not in the first request
        self._metrics = RequestMetrics()
        judge = Asked(self._model, self._settings, self._metrics.waiting.set)
        app = create_app(judge, lambda: following.current, self._settings.http, self._metrics.observe)
        app.add_middleware(_UnderServe)
        return app

    async def check_health(self) -> None:
        """Asked by Ray Serve; of the model, where it is here."""
        self._metrics.waiting.again()
        if isinstance(self._model, Model):
            await self._model.check_health()
