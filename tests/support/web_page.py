"""What the tests of the web page share: the real service with a judge that reads grey levels, and images for it."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from detector_core.evaluation.calibration import verdict
from detector_core.images.decode import Heat, Pixels
from detector_core.images.faces import Face
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.errors import Unavailable

BUSY = 255
"""An image this bright finds the model busy; every other grey level is its own p_fake, in percent."""
NO_FACE, SEVERAL = (90, 60), (120, 60)
"""Sizes (width, height): an image of that size has no face, or three; any other one, which fills it."""


class GreyLevelClient:
    """The mean grey level is p_fake, in percent; its heat is a spot in the middle."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    async def predict(self, image_SSC: Pixels) -> Prediction:
        level = round(float(image_SSC.mean()))
        if level == BUSY:
            raise Unavailable("too many images are waiting")
        p_fake = min(1.0, level / 100)
        return Prediction(p_fake=p_fake, logit=0.0, verdict=verdict(p_fake, self.info.calibration), model=self.info)

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:  # noqa: ARG002 -- of the interface
        side = np.linspace(-1, 1, image_SSC.shape[0], dtype=np.float32)
        return np.exp(-4 * (side[:, None] ** 2 + side**2)).astype(np.float32)

    async def model_info(self) -> ModelInfo:
        return self.info


def find_faces(image_HWC: Pixels) -> list[Face]:
    """Stands in for the search, see the sizes above."""
    height, width = image_HWC.shape[:2]
    boxes = {NO_FACE: [], SEVERAL: [(6, 16, 34, 44), (46, 16, 74, 44), (86, 16, 114, 44)]}.get(
        (width, height), [(0.15 * width, 0.1 * height, 0.85 * width, 0.9 * height)]
    )
    return [Face(box=box, score=0.99, landmarks=np.zeros((5, 2), np.float32)) for box in boxes]


def grey(level: int, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """A flat image to choose; size is (width, height)."""
    return _file(np.full((size[1], size[0], 3), level, dtype=np.uint8))


def three(*levels: int) -> dict[str, Any]:
    """An image with three faces of these grey levels."""
    return _file(np.repeat(np.repeat(np.uint8(levels), 40)[None, :, None], 60, axis=0).repeat(3, axis=2))


def _file(pixels: Pixels) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"name": "my holiday.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of a service that runs in a thread for the length of a ``with`` block."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
