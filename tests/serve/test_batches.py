"""Batches over HTTP: each file gets the answer of a request of its own, later."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.registry.predictor import Predictor
from serve_app import batches, url_fetch
from serve_app.batch_store import BatchStore
from serve_app.errors import Refusal
from tests.support.clips import make_clip
from tests.support.http_service import image_bytes, make_app, status_and_code

IMAGES = [image_bytes(seed=seed) for seed in range(3)]
VOLATILE = {"index", "request_id", "timing_ms"}


@pytest.fixture
def client(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service with batches whose runner works."""
    monkeypatch.setattr(batches, "POLL_S", 0.02)
    with TestClient(make_app(predictor, batches_folder=str(tmp_path / "batches"), batch_files=5)) as client:
        yield client


def send(client: TestClient, files: list[bytes], **headers: str) -> dict[str, Any]:
    response = client.post("/v1/batches", files=[("file", data) for data in files], headers=headers)
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ended(client: TestClient, identifier: str) -> dict[str, Any]:
    for _ in range(500):
        answer: dict[str, Any] = client.get(f"/v1/batches/{identifier}").json()
        if answer["deleted_after"]:
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


def test_each_file_gets_the_answer_of_a_request_of_its_own(client: TestClient) -> None:
    sent = send(client, [*IMAGES, make_clip(3), b"no image"])
    assert (sent["files"], sent["webhook_secret"]) == (5, None)
    assert ended(client, sent["id"]) | {"request_id": ""} == {
        **sent,
        **{"status": "done", "done": 5, "failed": 1, "request_id": ""},
        "deleted_after": client.get(f"/v1/batches/{sent['id']}").json()["deleted_after"],
    }
    results = client.get(f"/v1/batches/{sent['id']}/results").json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4]
    for data, result in zip(IMAGES, results, strict=False):
        (expected,) = client.post("/v1/detect", content=data, headers={"Content-Type": "image/jpeg"}).json()["results"]
        ours = result["image"]
        assert {k: v for k, v in ours.items() if k not in VOLATILE} == {
            k: v for k, v in expected.items() if k not in VOLATILE
        }
    assert results[3]["clip"]["scored_frames"] == 16
    assert results[4]["error"]["code"] == "not_an_image"
    page = client.get(f"/v1/batches/{sent['id']}/results?start=1&count=2").json()["results"]
    assert [result["index"] for result in page] == [1, 2]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"files": [("file", b"x")] * 6}, (413, "too_large")),
        ({"data": {"file": "text"}, "files": {"other": b"x"}}, (422, "no_image")),
        ({"content": b"x", "headers": {"Content-Type": "image/jpeg"}}, (415, "unsupported_media_type")),
        ({"json": {"urls": ["https://example.org/a.jpg"]}}, (415, "unsupported_media_type")),
        ({"data": {"webhook": "https://example.org"}, "files": {"file": b"x"}}, (422, "bad_parameter")),
        ({"files": {"file": b"x"}, "headers": {"Idempotency-Key": "k" * 256}}, (422, "bad_parameter")),
    ],
    ids=["too many", "none", "no form", "URLs", "webhook", "long key"],
)
def test_what_cannot_work_is_refused(client: TestClient, request_: Any, expected: tuple[int, str]) -> None:
    assert status_and_code(client.post("/v1/batches", **request_)) == expected


def test_a_service_without_a_folder_has_no_batches(predictor: Predictor) -> None:
    assert TestClient(make_app(predictor)).post("/v1/batches", files={"file": b"x"}).status_code == 404


def test_cancellation_over_http(client: TestClient) -> None:
    identifier = send(client, IMAGES)["id"]
    assert client.delete(f"/v1/batches/{identifier}").status_code == 200
    assert ended(client, identifier)["status"] == "canceled"


def test_a_full_disk_takes_no_batch(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    answer = client.post("/v1/batches", files=[("file", IMAGES[0])])
    assert status_and_code(answer) == (503, "unavailable")
    assert "the batch cannot be stored now" in answer.json()["error"]["message"]
    assert answer.headers["Retry-After"] == "60"


def test_urls_are_fetched_where_the_operator_allows_it(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(address: str, max_bytes: int) -> bytes:  # noqa: ARG001 -- of the interface
        if "gone" in address:
            raise Refusal(422, "the URL cannot be used: its server answered with status 404", "bad_url")
        return IMAGES[0]

    monkeypatch.setattr(url_fetch, "fetch", fetch)
    monkeypatch.setattr(batches, "POLL_S", 0.02)
    with TestClient(make_app(predictor, batches_folder=str(tmp_path), allow_url=True, batch_files=2)) as client:
        urls = ["https://example.org/a", "https://example.org/gone"]
        sent = client.post("/v1/batches", json={"urls": urls}).json()
        assert ended(client, sent["id"])["failed"] == 1
        found, gone = client.get(f"/v1/batches/{sent['id']}/results").json()["results"]
        assert found["image"]["verdict"]
        assert gone["error"]["code"] == "bad_url"
        for body, expected in (
            ({"urls": "x"}, (422, "no_image")),
            ({"urls": [*urls, "x"]}, (413, "too_large")),
            ({"urls": urls, "webhook": 1}, (422, "bad_parameter")),
        ):
            assert status_and_code(client.post("/v1/batches", json=body)) == expected
        broken = client.post("/v1/batches", content=b"{", headers={"Content-Type": "application/json"})
        assert status_and_code(broken) == (400, "bad_request")


def test_the_same_key_is_the_same_batch_and_another_client_sees_none(client: TestClient) -> None:
    first, again, other = (send(client, IMAGES, **{"Idempotency-Key": key}) for key in ("a", "a", "b"))
    assert first["id"] == again["id"] != other["id"]
    different = client.post("/v1/batches", files=[("file", IMAGES[0])], headers={"Idempotency-Key": "a"})
    assert status_and_code(different) == (422, "bad_parameter")
    assert status_and_code(client.get("/v1/batches/" + "0" * 32)) == (404, "not_found")
    assert status_and_code(client.get("/v1/batches/..%2Fkey")) == (404, "not_found")
    store: BatchStore = client.app.state.batches.store  # type: ignore[attr-defined]
    with pytest.raises(Refusal, match="another client's"):
        store.get(first["id"], store.pseudonym("somebody else"))
