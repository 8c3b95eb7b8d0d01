"""A canary on a service without Ray, for tests: a registry, a candidate that can fail, and who answers."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from detector_core.images.decode import Heat, Pixels
from detector_core.registry import canaries, versions
from detector_core.registry.canary import Comparison, Status
from detector_core.registry.predictor import Prediction, Predictor
from serve_app.canary import CanaryRouter
from serve_app.routes import create_app
from serve_app.settings import HttpSettings
from tests.support.http_service import PredictorClient, image_bytes
from tests.support.models import save_model

IMAGES = [image_bytes(seed=seed) for seed in range(100)]
"""A canary takes half of them by chance: too few to judge, or so many that it may be promoted, once in 50,000 runs."""
PER_REQUEST = 10
AGREES, DISAGREES = (0.31, 0.7), (0.5, 0.501)
"""Thresholds at which the tiny model calls every image uncertain, as the live one does, and fake."""


class CandidateStub(PredictorClient):
    """A candidate that can be told to fail."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.error: Exception | None = None
        self.seconds, self.asked = 0.0, 0

    async def predict(self, image_SSC: Pixels) -> Prediction:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return await super().predict(image_SSC)

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        if self.error:
            raise self.error
        return await super().explain(image_SSC, toward)


@dataclass(frozen=True)
class Registry:
    """A registry with a live version, and two that agree and disagree with it."""

    folder: Path
    live: Predictor
    others: dict[tuple[float, float], Predictor]


def make_registry(folder: Path) -> Registry:
    """Makes a registry below an empty folder."""
    models = folder / "models"
    live = versions.promote(save_model(folder / "live", run="live"), models)
    others = {
        thresholds: versions.stage(save_model(folder / name, run=name, thresholds=thresholds), models)
        for name, thresholds in (("agrees", AGREES), ("disagrees", DISAGREES))
    }
    loaded = {thresholds: Predictor(models / version) for thresholds, version in others.items()}
    return Registry(models, Predictor(models / live), loaded)


class Trial:
    """A service with a canary on half of the images."""

    def __init__(self, registry: Registry, folder: Path, thresholds: tuple[float, float], **settings: Any) -> None:
        self.models = Path(shutil.copytree(registry.folder, folder / "models"))
        self.live, self.new = registry.live.info.version, registry.others[thresholds].info.version
        self.live_client, self.candidate = PredictorClient(registry.live), CandidateStub(registry.others[thresholds])
        self.canary = canaries.start(self.models, self.new, share=0.5)
        self.comparisons: list[Comparison] = []
        self.statuses: list[Status | None] = []
        self.router = CanaryRouter(str(self.models), self.candidate, self.comparisons.append, self.statuses.append)
        settings = HttpSettings(faces="off", **settings)
        self.http = TestClient(create_app(self.live_client, lambda: registry.live.info, settings, canary=self.router))
        self.router.update()

    def ask(self, *images: bytes, query: str = "") -> list[dict[str, Any]]:
        files = [("file", ("image.jpg", data, "image/jpeg")) for data in images]
        answer = self.http.post(f"/v1/detect{query}", files=files)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def ask_all(self) -> list[str]:
        """Which version answers about each image."""
        groups = (IMAGES[start : start + PER_REQUEST] for start in range(0, len(IMAGES), PER_REQUEST))
        return [result["model"]["version"] for group in groups for result in self.ask(*group)]

    def shown(self) -> dict[str, Any]:
        """What /v1/model says after another look at the registry."""
        self.router.update()
        return dict(self.http.get("/v1/model").json()["canary"])

    @property
    def taken(self) -> list[bytes]:
        return [data for data in IMAGES if self.canary.takes(self.canary.digest(data))]
