"""Time limits of a request, and clients that disconnect."""

import asyncio
import threading
import time
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app.middleware import RequestEvent
from tests.support.http_service import JPEG, PredictorClient, image_bytes, make_app, status_and_code

WHOLE_BODY = {"type": "http.request", "body": image_bytes(), "more_body": False}
FIRST_PART = {"type": "http.request", "body": image_bytes()[:100], "more_body": True}


class SlowClient(PredictorClient):
    """Takes 20 s for a prediction; ``cancelled`` is set if the prediction is cancelled meanwhile."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def predict(self, image_SSC: Pixels) -> Prediction:
        self.started.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().predict(image_SSC)


def call(app: FastAPI, messages: list[dict[str, Any]], disconnect_after_s: float) -> list[dict[str, Any]]:
    """Runs the bare ASGI app on messages of a client that then sends nothing and disconnects after a while."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        remaining = iter(messages)

        async def receive() -> dict[str, Any]:
            message = next(remaining, None)
            if message is None:
                await asyncio.sleep(disconnect_after_s)
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"image/jpeg")]
        scope = {"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers, "query_string": b""}
        await app({**scope, "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)

    asyncio.run(run())
    return sent


def test_an_answer_that_takes_too_long_is_503_and_cancelled(predictor: Predictor) -> None:
    slow = SlowClient(predictor)
    client = TestClient(make_app(predictor, slow, timeout_s=0.3))
    response = client.post("/v1/detect", content=image_bytes(), headers=JPEG)
    assert status_and_code(response) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert slow.cancelled.wait(5)


def test_a_body_that_arrives_too_slowly_is_408(predictor: Predictor) -> None:
    before = time.monotonic()
    sent = call(make_app(predictor, timeout_s=0.3), [FIRST_PART], disconnect_after_s=20)
    assert sent[0]["status"] == 408
    assert time.monotonic() - before < 5


def test_work_is_cancelled_when_the_client_disconnects(predictor: Predictor) -> None:
    slow, events = SlowClient(predictor), list[RequestEvent]()
    call(make_app(predictor, slow, observe=events.append), [WHOLE_BODY], disconnect_after_s=1.0)
    assert slow.started.is_set()
    assert slow.cancelled.is_set()
    assert events[0].status == 499


def test_a_client_that_disconnects_while_sending_is_not_logged_as_an_error(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[RequestEvent] = []
    call(make_app(predictor, observe=events.append), [FIRST_PART], disconnect_after_s=0.0)
    assert [event.status for event in events] == [499]
    assert caplog.records == []
