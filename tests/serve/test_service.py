"""Concurrent requests and the images of one request."""

import asyncio

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.images import faces as face_search
from detector_core.images.decode import Pixels, decode
from detector_core.registry.predictor import Prediction, Predictor
from serve_app.errors import Unavailable
from tests.support.http_service import JPEG, PredictorClient, encode, image_bytes, make_app, status_and_code


def test_concurrent_requests_do_not_mix_their_answers(predictor: Predictor) -> None:
    images = [image_bytes(seed=seed) for seed in range(8)]
    expected = [predictor.predict([decode(data)])[0].p_fake for data in images]

    async def run() -> list[float]:
        transport = httpx.ASGITransport(app=make_app(predictor))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = await asyncio.gather(*(client.post("/v1/detect", content=data, headers=JPEG) for data in images))
        return [answer.json()["results"][0]["p_fake"] for answer in answers]

    assert asyncio.run(run()) == pytest.approx(expected, abs=1e-6)


class RefusesBlack(PredictorClient):
    """Refuses a nearly black image once two others wait; ``cancelled`` counts those that are then cancelled."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.waiting, self.cancelled = 0, 0

    async def predict(self, image_SSC: Pixels) -> Prediction:
        if image_SSC.max() <= 8:
            while self.waiting < 2:
                await asyncio.sleep(0.01)
            raise Unavailable("the queue is full")
        self.waiting += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("unreachable")


def test_a_refused_image_cancels_the_others_of_its_request(predictor: Predictor) -> None:
    async def run() -> None:
        model_client = RefusesBlack(predictor)
        transport = httpx.ASGITransport(app=make_app(predictor, model_client))
        nearly_black = Image.new("RGB", (48, 48))
        nearly_black.paste((8, 8, 8), (24, 0, 48, 48))  # of one color, it would not be scored at all
        images = (image_bytes(), encode(nearly_black), image_bytes(seed=1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/v1/detect", files=[("file", data) for data in images])
        assert status_and_code(response) == (503, "unavailable")
        assert response.json()["error"]["message"] == "the queue is full"
        assert (model_client.waiting, model_client.cancelled) == (2, 2)

    asyncio.run(run())


@pytest.mark.parametrize(("faces", "warm_ups"), [("off", 0), ("on", 1)])
def test_readiness_loads_the_face_detector_if_requests_need_it(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, faces: str, warm_ups: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(face_search, "warm_up", lambda: calls.append(1))
    assert TestClient(make_app(predictor, faces=faces)).get("/readyz").status_code == 200
    assert len(calls) == warm_ups
