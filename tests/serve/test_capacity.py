"""Limits on the requests and bytes that one process holds, and that both are released however a request ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app import routes, url_fetch
from serve_app.capacity import Capacity
from serve_app.errors import Unavailable
from serve_app.settings import HttpSettings, Limits
from tests.support.clips import make_clip
from tests.support.http_service import JPEG, FailingClient, PredictorClient, image_bytes, make_app, status_and_code

SMALL = Limits(max_bytes=10_000, max_video_bytes=10_000, max_files=3)


@pytest.fixture
def capacities(monkeypatch: pytest.MonkeyPatch) -> list[Capacity]:
    """The capacities of the applications that a test makes."""
    made: list[Capacity] = []

    class RecordedCapacity(Capacity):
        def __init__(self, max_requests: int, max_bytes: int) -> None:
            super().__init__(max_requests, max_bytes)
            made.append(self)

    monkeypatch.setattr(routes, "Capacity", RecordedCapacity)
    return made


class InterruptedClient(PredictorClient):
    """Runs something else before it predicts."""

    def __init__(self, predictor: Predictor, interruption: Callable[[], Awaitable[None]]) -> None:
        super().__init__(predictor)
        self.interruption = interruption

    async def predict(self, image_SSC: Pixels) -> Prediction:
        await self.interruption()
        return await super().predict(image_SSC)


@pytest.mark.parametrize("announces_length", [True, False])
def test_bytes_beyond_the_capacity_are_503_with_retry_after(
    predictor: Predictor, capacities: list[Capacity], announces_length: bool
) -> None:
    data, answers = image_bytes(), list[httpx.Response]()

    async def send_second_request() -> None:
        async def parts() -> Any:
            yield data

        in_use = capacities[0].in_use
        assert in_use == (1, len(data))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = data if announces_length else parts()
            answers.append(await client.post("/v1/detect", content=content, headers=JPEG))
        assert capacities[0].in_use == in_use

    settings = {"limits": Limits(max_bytes=len(data), max_video_bytes=len(data)), "max_open_bytes": 2 * len(data) - 1}
    app = make_app(predictor, InterruptedClient(predictor, send_second_request), **settings)
    assert TestClient(app).post("/v1/detect", content=data, headers=JPEG).status_code == 200
    assert status_and_code(answers[0]) == (503, "unavailable")
    assert int(answers[0].headers["Retry-After"]) > 0
    assert capacities[0].in_use == (0, 0)


def test_requests_beyond_the_capacity_are_503(predictor: Predictor) -> None:
    answers: list[httpx.Response] = []

    async def send_second_request() -> None:
        answers.append(client.post("/v1/detect", content=image_bytes(), headers=JPEG))

    client = TestClient(make_app(predictor, InterruptedClient(predictor, send_second_request), max_open=1))
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200
    assert [status_and_code(answer) for answer in answers] == [(503, "unavailable")]
    assert answers[0].json()["error"]["message"].startswith("too many requests are open")
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200


ENDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "an answer": ("/v1/detect", {"content": image_bytes(), "headers": JPEG}, 200),
    "a form": ("/v1/detect", {"files": [("file", image_bytes(seed=n)) for n in range(2)]}, 200),
    "not an image": ("/v1/detect", {"content": b"text", "headers": JPEG}, 400),
    "one bad image of two": ("/v1/detect", {"files": [("file", image_bytes()), ("file", b"text")]}, 400),
    "too large": ("/v1/detect", {"content": b"x" * 10_001, "headers": JPEG}, 413),
    "far too large": ("/v1/detect", {"content": b"x" * 100_000, "headers": JPEG}, 413),
    "too large, length unknown": ("/v1/detect", {"content": iter([b"x" * 6000] * 2), "headers": JPEG}, 413),
    "a clip": ("/v1/detect/video", {"content": make_clip(3), "headers": {"Content-Type": "video/mp4"}}, 200),
    "not a clip": ("/v1/detect/video", {"content": b"text", "headers": {"Content-Type": "video/mp4"}}, 400),
    "feedback is off": ("/v1/feedback", {"files": {"file": image_bytes()}}, 404),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_capacity_is_released_however_a_request_ends(
    predictor: Predictor, capacities: list[Capacity], name: str
) -> None:
    path, request, status = ENDS[name]
    client = TestClient(make_app(predictor, limits=SMALL))
    assert client.post(path, **request).status_code == status
    assert capacities[0].in_use == (0, 0)


@pytest.mark.parametrize(("error", "status"), [(Unavailable("restarting"), 503), (RuntimeError("a bug"), 500)])
def test_the_capacity_is_released_when_the_model_fails(
    predictor: Predictor, capacities: list[Capacity], error: Exception, status: int
) -> None:
    client = TestClient(make_app(predictor, FailingClient(error)), raise_server_exceptions=False)
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == status
    assert capacities[0].in_use == (0, 0)


def test_the_capacity_is_released_when_the_client_disconnects(predictor: Predictor, capacities: list[Capacity]) -> None:
    async def run() -> None:
        predicting = asyncio.Event()

        async def block() -> None:
            predicting.set()
            await asyncio.sleep(60)

        transport = httpx.ASGITransport(app=make_app(predictor, InterruptedClient(predictor, block)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            request = asyncio.create_task(client.post("/v1/detect", content=image_bytes(), headers=JPEG))
            await predicting.wait()
            assert capacities[0].in_use == (1, len(image_bytes()))
            request.cancel()
            await asyncio.wait([request])
        assert capacities[0].in_use == (0, 0)

    asyncio.run(run())


def test_downloaded_bytes_count_toward_the_capacity(
    predictor: Predictor, capacities: list[Capacity], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(_: str, max_bytes: int, on_bytes: Callable[[int], None]) -> bytes:
        assert max_bytes == 10_000
        on_bytes(settings.capacity_bytes - capacities[0].in_use[1])
        on_bytes(1)
        return image_bytes()

    settings = HttpSettings(limits=SMALL)
    monkeypatch.setattr(url_fetch, "fetch", fetch)
    client = TestClient(make_app(predictor, limits=SMALL, allow_url=True))
    assert status_and_code(client.post("/v1/detect", json={"url": "https://example.org"})) == (503, "unavailable")
    assert capacities[0].in_use == (0, 0)
