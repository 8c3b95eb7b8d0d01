"""What the tests of the HTTP service share: images in memory, model clients without Ray, and the form of an error."""

import io
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image

from detector_core.evaluation.calibration import verdict
from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor
from serve_app.pipeline import ModelClient
from serve_app.routes import create_app
from serve_app.settings import HttpSettings, Limits

LIMITS = Limits(max_bytes=200_000, max_files=3, max_pixels=100_000)
JPEG = {"Content-Type": "image/jpeg"}


def image_bytes(size: tuple[int, int] = (48, 48), seed: int = 0, format_: str = "JPEG", **options: Any) -> bytes:
    """An image file with colored noise; size is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), format_, **options)


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """Encodes an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


class PredictorClient:
    """A model client that calls a predictor in this process; its heat maps are a ramp that rises to the right."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    async def predict(self, image_SSC: Pixels) -> Prediction:
        return self.predictor.predict([image_SSC])[0]

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:  # noqa: ARG002 -- of the interface
        side = image_SSC.shape[0]
        return np.tile(np.linspace(0, 1, side, dtype=np.float32), (side, 1))

    async def model_info(self) -> ModelInfo:
        return self.predictor.info


class FailingClient:
    """A model client whose every method raises the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def predict(self, image_SSC: Pixels) -> Prediction:  # noqa: ARG002 -- of the interface
        raise self.error

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:  # noqa: ARG002 -- of the interface
        raise self.error

    async def model_info(self) -> ModelInfo:
        raise self.error


class BrightnessClient(PredictorClient):
    """The mean brightness of an image is its p_fake."""

    async def predict(self, image_SSC: Pixels) -> Prediction:
        p_fake = float(image_SSC.mean()) / 255
        info = self.predictor.info
        return Prediction(p_fake=p_fake, logit=0.0, verdict=verdict(p_fake, info.calibration), model=info)


def make_app(
    predictor: Predictor, model_client: ModelClient | None = None, observe: Any = None, **settings: Any
) -> FastAPI:
    """The application for a predictor, with small limits unless others are given."""
    http = HttpSettings(**{"limits": LIMITS, **settings})
    optional = {"observe": observe} if observe else {}
    return create_app(model_client or PredictorClient(predictor), lambda: predictor.info, http, **optional)


def status_and_code(response: Any) -> tuple[int, str]:
    """Status and error code of an answer; fails unless its body has the form of every error."""
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(error) == {"code", "message", "request_id"}
    assert error["message"]
    assert error["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, error["code"]
