"""What the tests of the web page share: a model client that reads gray levels, images for it, and a running service."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Page

from detector_core.evaluation.calibration import verdict
from detector_core.images.decode import Heat, Pixels
from detector_core.images.faces import Face
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.errors import Refusal, Unavailable
from tests.support.faces import make_face

BUSY = 240
"""Gray level for which the model is busy; any other gray level is the p_fake of the image, in percent."""
SHADE = 4
"""How far the gray levels of an image deviate from their mean, so that it is not blank."""
NO_FACE, SEVERAL = (90, 60), (120, 60)
"""Sizes (width, height) of images with no face and with three faces; in any other size, one face fills the image."""


PICTURE, GONE = "https://example.org/face.png", "https://example.org/gone.png"


class GrayLevelClient:
    """A model client: the mean gray level is p_fake, in percent; the heat map is a spot in the middle."""

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
    """Replaces the face detector, see NO_FACE and SEVERAL."""
    height, width = image_HWC.shape[:2]
    if (width, height) == NO_FACE:
        return []
    if (width, height) == SEVERAL:
        return [make_face(left, 11, 38) for left in (1, 41, 81)]
    return [make_face(0, 0, min(width, height))]


def gray(level: int, size: tuple[int, int] = (64, 64), shade: int = SHADE) -> dict[str, Any]:
    """An image file of one mean gray level, darker on the left and lighter on the right by ``shade``.

    Args:
        size: (width, height).
    """
    row = np.rint(np.linspace(level - shade, level + shade, size[0])).clip(0, 255).astype(np.uint8)
    return _file(np.broadcast_to(row[None, :, None], (size[1], size[0], 3)))


def three(*levels: int) -> dict[str, Any]:
    """An image file with three faces of these gray levels."""
    return _file(np.repeat(np.repeat(np.uint8(levels), 40)[None, :, None], 60, axis=0).repeat(3, axis=2))


async def fetch(address: str, _: int, on_bytes: Callable[[int], None]) -> bytes:
    """Replaces the download from an address: PICTURE leads to a picture, GONE to nothing, any other to a page."""
    if address == GONE:
        raise Refusal(422, "the URL cannot be used: its server answered with status 404", "bad_url")
    data: bytes = gray(90)["buffer"] if address == PICTURE else b"<!doctype html>"
    on_bytes(len(data))
    return data


def _file(pixels: Pixels) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"name": "my holiday.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Runs an application in a thread for the length of a ``with`` block; yields its address."""
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


def assert_accessible(page: Page, where: str = "") -> None:
    """Fails if axe finds a violation on a page, after its animations: what is still faint has too little contrast."""
    page.evaluate(
        """Promise.allSettled(document.getAnimations()
            .filter((animation) => animation.effect.getComputedTiming().endTime !== Infinity)
            .map((animation) => animation.finished)).then(() => null)"""
    )
    results = Axe().run(page)
    assert results.violations_count == 0, f"{where}: {results.generate_report()}"
