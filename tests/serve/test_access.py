"""Keys, rate, CORS, headers, time limits, and what an observer is told."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from detector_core.errors import BadConfig
from detector_core.images import faces as face_search
from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app import access, pipeline
from serve_app.access import AccessControl
from serve_app.middleware import RequestEvent
from tests.support.http_service import JPEG, PredictorClient, image_bytes, make_app, status_and_code


def post(client: TestClient, **headers: str) -> Any:
    return client.post("/v1/detect", content=image_bytes(), headers={**JPEG, **headers})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst-key\n\nsecond-key  # of the newsroom\n")
    return path


def test_without_a_key_nothing_is_judged_or_kept(predictor: Predictor, key_file: Path) -> None:
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    for wrong in ({}, {"X-API-Key": "third"}, {"X-API-Key": ""}, {"X-API-Key": "# ours"}, {"Authorization": "Basic x"}):
        response = post(client, **wrong)
        assert status_and_code(response) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/v1/detect/video", "/v1/feedback"):
        assert status_and_code(client.post(path, content=b"x")) == (401, "unauthorized")
    assert post(client, Authorization="Bearer first-key").status_code == 200
    assert post(client, **{"X-API-Key": "second-key"}).status_code == 200
    for path in ("/v1/model", "/healthz", "/readyz", "/", "/static/page.js", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/model").json()["features"]["key"] is True
    operation = client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]
    assert operation["security"]
    assert "401" in operation["responses"]


def test_a_key_file_is_read_again_when_it_changes(
    predictor: Predictor, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_RELOAD_S", -1)
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    key_file.write_text("new-key\n")
    os.utime(key_file, ns=(1, 1))
    assert post(client, **{"X-API-Key": "new-key"}).status_code == 200
    assert post(client, **{"X-API-Key": "first-key"}).status_code == 401
    key_file.unlink()
    assert post(client, **{"X-API-Key": "new-key"}).status_code == 200


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_key_file_without_keys_stops_the_start(predictor: Predictor, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadConfig, match="api_keys_file"):
        make_app(predictor, api_keys_file=str(path))


def test_a_client_that_asks_too_often_is_told_when_to_come_back(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor, requests_per_minute=2))
    assert [post(client).status_code for _ in range(2)] == [200, 200]
    response = post(client)
    assert status_and_code(response) == (429, "too_many_requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert client.get("/v1/model").status_code == 200
    other = TestClient(make_app(predictor, requests_per_minute=2), client=("10.1.1.1", 1))
    assert post(other).status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("::ffff:10.0.0.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("unix", "198.51.100.1", "unix"),
    ],
)
def test_the_address_that_is_counted(peer: str, forwarded: str, counted: str) -> None:
    guard = AccessControl(None, 1, ["10.0.0.0/8"])
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert guard.client(Request({"type": "http", "client": (peer, 1), "headers": headers})) == counted


def test_a_proxy_that_is_no_address_stops_the_start(predictor: Predictor) -> None:
    with pytest.raises(BadConfig, match="trusted_proxies"):
        make_app(predictor, trusted_proxies=["proxy.example"])


def test_other_origins_are_closed_by_default(client: TestClient, predictor: Predictor) -> None:
    origin = {"Origin": "https://other.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in post(client, **origin).headers
    assert client.options("/v1/detect", headers=preflight).status_code == 405
    opened = TestClient(make_app(predictor, cors_origins=["https://other.example"]))
    assert post(opened, **origin).headers["access-control-allow-origin"] == "https://other.example"
    assert opened.options("/v1/detect", headers=preflight).status_code == 200
    assert "access-control-allow-origin" not in post(opened, Origin="https://third.example").headers


def test_every_answer_has_the_headers_and_an_id(client: TestClient) -> None:
    responses = [client.get("/nope"), client.get("/healthz"), post(client), client.get("/"), client.get("/v1/detect")]
    for response in responses:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Request-ID"]
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


class SlowClient(PredictorClient):
    """Answers after a while; ``cancelled`` when nobody waits any more."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.asked, self.cancelled = threading.Event(), threading.Event()

    async def predict(self, image_SSC: Pixels) -> Prediction:
        self.asked.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().predict(image_SSC)


def test_an_answer_that_takes_too_long_is_503(predictor: Predictor) -> None:
    judge = SlowClient(predictor)
    response = post(TestClient(make_app(predictor, judge, timeout_s=0.3)))
    assert status_and_code(response) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert judge.cancelled.wait(5)


def call(app: FastAPI, messages: list[dict[str, Any]], then_s: float) -> list[dict[str, Any]]:
    """Runs the bare ASGI app on messages of a client that then stays silent for a while and leaves."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        waiting = iter(messages)

        async def receive() -> dict[str, Any]:
            message = next(waiting, None)
            if message is None:
                await asyncio.sleep(then_s)
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"image/jpeg")]
        scope = {"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers, "query_string": b""}
        await app({**scope, "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)

    asyncio.run(run())
    return sent


def test_a_body_that_comes_too_slowly_is_given_up(predictor: Predictor) -> None:
    before = time.monotonic()
    part = {"type": "http.request", "body": image_bytes()[:100], "more_body": True}
    sent = call(make_app(predictor, timeout_s=0.3), [part], then_s=20)
    assert sent[0]["status"] == 408
    assert time.monotonic() - before < 5


def test_work_for_a_client_that_left_is_dropped(predictor: Predictor) -> None:
    judge, events = SlowClient(predictor), list[RequestEvent]()
    whole = {"type": "http.request", "body": image_bytes(), "more_body": False}
    call(make_app(predictor, judge, observe=events.append), [whole], then_s=1.0)
    assert judge.asked.is_set()
    assert judge.cancelled.is_set()
    assert events[0].status == 499


def test_an_observer_sees_each_answer_and_no_image(predictor: Predictor) -> None:
    events: list[RequestEvent] = []
    client = TestClient(make_app(predictor, observe=events.append))
    answer = client.post("/v1/detect", files=[("file", ("secret.jpg", image_bytes(seed=n))) for n in range(2)]).json()
    post(client, **{"X-Request-ID": "mine"})
    client.post("/v1/detect", content=b"x", headers=JPEG)
    client.get("/somewhere/else")
    assert [(event.route, event.status, event.images) for event in events] == [
        ("/v1/detect", 200, 2),
        ("/v1/detect", 200, 1),
        ("/v1/detect", 400, 0),
        ("unknown", 404, 0),
    ]
    assert events[0].verdicts == tuple(result["verdict"] for result in answer["results"])
    assert events[0].p_fakes == tuple(result["p_fake"] for result in answer["results"])
    assert set(events[0].seconds) == {"read", "decode", "faces", "detect", "explain", "total"}
    assert sum(events[1].seconds.values()) <= 2 * events[1].seconds["total"]
    assert events[1].request_id == "mine"
    assert "secret" not in repr(events)


def test_the_service_is_ready_once_model_and_face_search_answer(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(face_search, "warm_up", lambda: warmed.append(1))
    assert TestClient(make_app(predictor, faces="off")).get("/readyz").status_code == 200
    assert warmed == []
    assert TestClient(make_app(predictor, faces="on")).get("/readyz").status_code == 200
    assert warmed == [1]


def test_images_wait_for_memory_and_a_huge_one_goes_alone() -> None:
    workers = pipeline.Workers(count=4, open_bytes=100)
    open_now, most, lock = 0, [0], threading.Lock()

    def work(count: int) -> None:
        nonlocal open_now
        with workers.memory(count):
            with lock:
                open_now += min(count, 100)
                most.append(open_now)
            time.sleep(0.02)
            with lock:
                open_now -= min(count, 100)

    async def run() -> None:
        await asyncio.gather(*(workers.run(work, count) for count in (60, 60, 40, 1000, 30, 70, 100)))

    asyncio.run(run())
    assert max(most) <= 100


def test_requests_at_the_same_time_are_answered_apart(predictor: Predictor) -> None:
    app = make_app(predictor)
    sent = [image_bytes(seed=seed) for seed in range(8)]
    expected = [predictor.predict([pipeline.decode(data)])[0].p_fake for data in sent]

    async def run() -> list[float]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = await asyncio.gather(*(client.post("/v1/detect", content=data, headers=JPEG) for data in sent))
        return [answer.json()["results"][0]["p_fake"] for answer in answers]

    assert asyncio.run(run()) == pytest.approx(expected, abs=1e-6)


def test_a_client_that_leaves_within_its_body_is_no_error_of_ours(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[RequestEvent] = []
    part = {"type": "http.request", "body": image_bytes()[:100], "more_body": True}
    call(make_app(predictor, observe=events.append), [part], then_s=0.0)
    assert [event.status for event in events] == [499]
    assert caplog.records == []
