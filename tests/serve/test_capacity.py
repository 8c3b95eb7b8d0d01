"""How much one process has in hand at once, and that whatever ends a request gives its room back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app import routes, url_fetch
from serve_app.capacity import Capacity
from serve_app.errors import Unavailable
from serve_app.settings import HttpSettings, Limits
from tests.support.clips import clip
from tests.support.http_service import (
    JPEG,
    FailingClient,
    PredictorClient,
    image_bytes,
    make_app,
    saved,
    status_and_code,
)

SMALL = Limits(max_bytes=10_000, max_video_bytes=10_000, max_files=3)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[Capacity]:
    """The rooms of the services that are made."""
    made: list[Capacity] = []

    class Remembered(Capacity):
        def __init__(self, most: int, most_bytes: int) -> None:
            super().__init__(most, most_bytes)
            made.append(self)

    monkeypatch.setattr(routes, "Capacity", Remembered)
    return made


class Meanwhile(PredictorClient):
    """Runs something else before it answers."""

    def __init__(self, predictor: Predictor, then: Callable[[], Awaitable[None]]) -> None:
        super().__init__(predictor)
        self.then = then

    async def predict(self, image_SSC: Pixels) -> Prediction:
        await self.then()
        return await super().predict(image_SSC)


@pytest.mark.parametrize("states_length", [True, False])
def test_bytes_beyond_the_room_are_refused_with_when_to_come_back(
    predictor: Predictor, rooms: list[Capacity], states_length: bool
) -> None:
    data, answers = image_bytes(), list[httpx.Response]()

    async def second() -> None:
        async def parts() -> Any:
            yield data

        held = rooms[0].in_use
        assert held == (1, len(data))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = data if states_length else parts()
            answers.append(await client.post("/v1/detect", content=content, headers=JPEG))
        assert rooms[0].in_use == held

    settings = {"limits": Limits(max_bytes=len(data), max_video_bytes=len(data)), "max_open_bytes": 2 * len(data) - 1}
    app = make_app(predictor, Meanwhile(predictor, second), **settings)
    client = TestClient(app)
    assert client.post("/v1/detect", content=data, headers=JPEG).status_code == 200
    assert status_and_code(answers[0]) == (503, "unavailable")
    assert int(answers[0].headers["Retry-After"]) > 0
    assert rooms[0].in_use == (0, 0)


ENDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "answered": ("/v1/detect", {"content": image_bytes(), "headers": JPEG}, 200),
    "a form": ("/v1/detect", {"files": [("file", image_bytes(seed=n)) for n in range(2)]}, 200),
    "not an image": ("/v1/detect", {"content": b"text", "headers": JPEG}, 400),
    "one of several": ("/v1/detect", {"files": [("file", image_bytes()), ("file", b"text")]}, 400),
    "too large": ("/v1/detect", {"content": b"x" * 10_001, "headers": JPEG}, 413),
    "far too large": ("/v1/detect", {"content": b"x" * 100_000, "headers": JPEG}, 413),
    "too large, length unknown": ("/v1/detect", {"content": iter([b"x" * 6000] * 2), "headers": JPEG}, 413),
    "a clip": ("/v1/detect/video", {"content": clip(3), "headers": {"Content-Type": "video/mp4"}}, 200),
    "not a clip": ("/v1/detect/video", {"content": b"text", "headers": {"Content-Type": "video/mp4"}}, 400),
    "no feedback kept": ("/v1/feedback", {"files": {"file": image_bytes()}}, 404),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_gives_the_room_back(predictor: Predictor, rooms: list[Capacity], name: str) -> None:
    path, request, status = ENDS[name]
    client = TestClient(make_app(predictor, limits=SMALL))
    assert client.post(path, **request).status_code == status
    assert rooms[0].in_use == (0, 0)


@pytest.mark.parametrize("error", [Unavailable("restarting"), RuntimeError("a mistake")])
def test_a_failing_model_gives_the_room_back(predictor: Predictor, rooms: list[Capacity], error: Exception) -> None:
    client = TestClient(make_app(predictor, FailingClient(error)), raise_server_exceptions=False)
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code in (500, 503)
    assert rooms[0].in_use == (0, 0)


def test_a_client_that_leaves_gives_the_room_back(predictor: Predictor, rooms: list[Capacity]) -> None:
    async def run() -> None:
        asked = asyncio.Event()

        async def wait() -> None:
            asked.set()
            await asyncio.sleep(60)

        app = make_app(predictor, Meanwhile(predictor, wait))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asking = asyncio.create_task(client.post("/v1/detect", content=image_bytes(), headers=JPEG))
            await asked.wait()
            assert rooms[0].in_use == (1, len(image_bytes()))
            asking.cancel()
            await asyncio.wait([asking])
        assert rooms[0].in_use == (0, 0)

    asyncio.run(run())


def test_what_is_fetched_counts(predictor: Predictor, rooms: list[Capacity], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetched(_: str, max_bytes: int, take: Callable[[int], None]) -> bytes:
        assert max_bytes == 10_000
        take(rooms[0]._most_bytes - rooms[0].in_use[1])
        take(1)
        return image_bytes()

    monkeypatch.setattr(url_fetch, "fetch", fetched)
    client = TestClient(make_app(predictor, limits=SMALL, allow_url=True))
    assert status_and_code(client.post("/v1/detect", json={"url": "https://example.org"})) == (503, "unavailable")
    assert rooms[0].in_use == (0, 0)


def test_the_room_is_reckoned_from_the_limits_and_holds_the_largest_request() -> None:
    assert HttpSettings().capacity_bytes == 8 * 50 * 2**20
    assert HttpSettings(limits=Limits(frames=0)).capacity_bytes == 8 * 20 * 2**20
    with pytest.raises(ValueError, match="max_open_bytes is 1000: limits allow a request of 52428800"):
        HttpSettings(max_open_bytes=1000)


class Sibling(PredictorClient):
    """Refuses the darkest image once two others wait; ``cancelled`` counts those that waited in vain."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.waiting, self.cancelled = 0, 0

    async def predict(self, image_SSC: Pixels) -> Prediction:
        if image_SSC.max() == 0:
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


def test_a_refused_image_takes_the_others_of_its_request_with_it(predictor: Predictor) -> None:
    async def run() -> None:
        judge = Sibling(predictor)
        transport = httpx.ASGITransport(app=make_app(predictor, judge))
        sent = [("file", image_bytes()), ("file", saved(Image.new("RGB", (48, 48)))), ("file", image_bytes(seed=1))]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/v1/detect", files=sent)
        assert status_and_code(response) == (503, "unavailable")
        assert response.json()["error"]["message"] == "the queue is full"
        assert (judge.waiting, judge.cancelled) == (2, 2)

    asyncio.run(run())
