"""Headers and id of every answer, HEAD and Host, and the events for metrics and log."""

import asyncio
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.registry.predictor import Predictor
from serve_app.middleware import RequestEvent
from tests.support.http_service import JPEG, FailingClient, image_bytes, make_app, status_and_code


def test_every_answer_has_security_headers_and_an_id(client: TestClient) -> None:
    image = client.post("/v1/detect", content=image_bytes(), headers=JPEG)
    for response in (image, *(client.get(path) for path in ("/nope", "/healthz", "/", "/v1/detect"))):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Request-ID"]
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced(client: TestClient) -> None:
    assert client.get("/nope", headers={"X-Request-ID": "abc-1"}).json()["error"]["request_id"] == "abc-1"
    assert client.get("/nope", headers={"X-Request-ID": "a b"}).json()["error"]["request_id"] != "a b"
    twice = client.get("/nope", headers=[("X-Request-ID", "abc-1"), ("X-Request-ID", "abc-2")])
    assert twice.headers.get_list("X-Request-ID") == [twice.json()["error"]["request_id"]]
    assert twice.headers["X-Request-ID"] not in ("abc-1", "abc-2")


def test_head_is_answered_like_get_without_the_body(predictor: Predictor) -> None:
    events: list[RequestEvent] = []
    client = TestClient(make_app(predictor, observe=events.append))
    paths = (
        "/",
        "/docs",
        "/openapi.json",
        "/v1/model",
        "/healthz",
        "/readyz",
        "/static/page.js",
        "/nope",
        "/v1/detect",
    )
    for path in paths:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}, path
        assert int(head.headers["Content-Length"]) == len(got.content) > 0, path
    assert [(event.method, event.route) for event in events[:2]] == [("GET", "/"), ("HEAD", "/")]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", [], 400),
        ("1.1", [b""], 400),
        ("1.1", [b"a.example", b"b.example"], 400),
        ("1.1", [b"a.example"], 200),
        ("2", [b"a.example"], 200),
        ("1.0", [], 200),
    ],
)
def test_a_request_must_name_one_host(predictor: Predictor, version: str, hosts: list[bytes], status: int) -> None:
    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": version,
        "method": "GET",
        "path": "/healthz",
        "query_string": b"",
        "headers": [(b"host", host) for host in hosts],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(make_app(predictor)(scope, receive, send))
    assert sent[0]["status"] == status
    assert (b"Host" in sent[1]["body"]) == (status == 400)


def test_an_unexpected_exception_is_500_without_details(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(predictor, FailingClient(RuntimeError("a secret detail")))
    client = TestClient(app, raise_server_exceptions=False)
    response = client.post("/v1/detect", content=image_bytes(), headers=JPEG)
    assert status_and_code(response) == (500, "internal")
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.name == "ray.serve", "the log that Serve writes as JSON, where operators look for the request's id"
    assert response.json()["error"]["request_id"] in record.getMessage()


def test_each_answer_is_one_event_without_image_or_file_name(predictor: Predictor) -> None:
    events: list[RequestEvent] = []
    client = TestClient(make_app(predictor, observe=events.append))
    answer = client.post("/v1/detect", files=[("file", ("secret.jpg", image_bytes(seed=n))) for n in range(2)]).json()
    client.post("/v1/detect", content=image_bytes(), headers={**JPEG, "X-Request-ID": "mine"})
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
