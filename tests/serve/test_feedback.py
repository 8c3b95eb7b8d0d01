"""POST /v1/feedback: kept with consent only, and only where the operator keeps any."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.data import feedback
from detector_core.errors import BadConfig
from detector_core.images.decode import decode
from detector_core.registry.predictor import Predictor
from tests.support.http_service import image_bytes, make_app, status_and_code

CONSENT = {"consent": "true", "label": "real"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "feedback"


@pytest.fixture
def client(predictor: Predictor, folder: Path) -> TestClient:
    return TestClient(make_app(predictor, feedback_folder=str(folder)))


def give(client: TestClient, fields: dict[str, str], data: bytes | None = None) -> Any:
    return client.post(
        "/v1/feedback", data=fields, files={"file": ("anna.jpg", image_bytes() if data is None else data)}
    )


def test_a_gift_with_consent_is_kept(client: TestClient, folder: Path, predictor: Predictor) -> None:
    data = image_bytes(seed=3)
    response = give(client, {**CONSENT, "label": "fake", "verdict": "real", "request_id": "abc-1"}, data)
    assert response.status_code == 201
    answer = response.json()
    (record,) = feedback.read(folder)
    assert answer == {"id": record.id, "stored": True, "request_id": response.headers["X-Request-ID"]}
    assert (record.label, record.verdict, record.request_id) == ("fake", "real", "abc-1")
    assert record.model == {"name": "tiny", "version": "tiny-v1", "sha256": predictor.info.sha256}
    assert (decode((folder / record.image).read_bytes()) == decode(data)).all()
    assert all("anna" not in path.name and b"anna" not in path.read_bytes() for path in folder.rglob("*.*"))


REFUSED = {
    "no consent": ({"label": "real"}, image_bytes(), 422, "no_consent"),
    "consent denied": ({"label": "real", "consent": "false"}, image_bytes(), 422, "no_consent"),
    "no label": ({"consent": "true"}, image_bytes(), 422, "bad_parameter"),
    "another label": ({"consent": "true", "label": "maybe"}, image_bytes(), 422, "bad_parameter"),
    "another verdict": ({**CONSENT, "verdict": "x"}, image_bytes(), 422, "bad_parameter"),
    "a long id": ({**CONSENT, "request_id": "x" * 65}, image_bytes(), 422, "bad_parameter"),
    "an odd id": ({**CONSENT, "request_id": "a\nb"}, image_bytes(), 422, "bad_parameter"),
    "no image": (CONSENT, b"text", 400, "not_an_image"),
    "too many bytes": (CONSENT, b"x" * 200_001, 413, "too_large"),
    "too many pixels": (CONSENT, image_bytes((1, 100_001), format_="PNG"), 413, "too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_gift_is_refused_and_leaves_nothing(client: TestClient, folder: Path, name: str) -> None:
    fields, data, status, code = REFUSED[name]
    assert status_and_code(give(client, fields, data)) == (status, code)
    assert list(folder.iterdir()) == []


def test_the_body_must_be_a_form_with_a_file(client: TestClient) -> None:
    assert (
        status_and_code(client.post("/v1/feedback", content=image_bytes(), headers={"Content-Type": "image/jpeg"}))[0]
        == 415
    )
    assert status_and_code(client.post("/v1/feedback", data=CONSENT, files={"x": b"y"})) == (422, "no_image")


def test_a_full_folder_is_503(predictor: Predictor, folder: Path) -> None:
    client = TestClient(make_app(predictor, feedback_folder=str(folder), feedback_bytes=10))
    response = give(client, CONSENT)
    assert status_and_code(response) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) == 3600
    assert str(folder) not in response.text


def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match=r"feedback_folder .*file/gifts cannot be written to"):
        make_app(predictor, feedback_folder=str(tmp_path / "file" / "gifts"))


def test_without_a_folder_there_is_no_feedback(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor))
    assert status_and_code(give(client, CONSENT)) == (404, "not_found")
    assert client.get("/v1/model").json()["features"]["feedback"] is False
