"""POST /v1/feedback: an image is stored only with consent, and only if the operator has set a folder."""

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


def post(client: TestClient, fields: dict[str, str], data: bytes | None = None) -> Any:
    return client.post(
        "/v1/feedback", data=fields, files={"file": ("anna.jpg", image_bytes() if data is None else data)}
    )


def test_an_image_with_consent_is_stored_without_its_file_name(
    client: TestClient, folder: Path, predictor: Predictor
) -> None:
    data = image_bytes(seed=3)
    response = post(client, {**CONSENT, "label": "fake", "verdict": "real", "request_id": "abc-1"}, data)
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
    "an unknown label": ({"consent": "true", "label": "maybe"}, image_bytes(), 422, "bad_parameter"),
    "an unknown verdict": ({**CONSENT, "verdict": "x"}, image_bytes(), 422, "bad_parameter"),
    "an id that is too long": ({**CONSENT, "request_id": "x" * 65}, image_bytes(), 422, "bad_parameter"),
    "an id with a line break": ({**CONSENT, "request_id": "a\nb"}, image_bytes(), 422, "bad_parameter"),
    "no image": (CONSENT, b"text", 400, "not_an_image"),
    "too many bytes": (CONSENT, b"x" * 200_001, 413, "too_large"),
    "too many pixels": (CONSENT, image_bytes((1, 100_001), format_="PNG"), 413, "too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_form_is_refused_and_stores_nothing(client: TestClient, folder: Path, name: str) -> None:
    fields, data, status, code = REFUSED[name]
    assert status_and_code(post(client, fields, data)) == (status, code)
    assert list(folder.iterdir()) == []


def test_the_body_must_be_a_form_with_a_file(client: TestClient) -> None:
    assert (
        status_and_code(client.post("/v1/feedback", content=image_bytes(), headers={"Content-Type": "image/jpeg"}))[0]
        == 415
    )
    assert status_and_code(client.post("/v1/feedback", data=CONSENT, files={"x": b"y"})) == (422, "no_image")


def test_a_full_folder_is_503(predictor: Predictor, folder: Path) -> None:
    client = TestClient(make_app(predictor, feedback_folder=str(folder), feedback_bytes=10))
    response = post(client, CONSENT)
    assert status_and_code(response) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) == 3600
    assert str(folder) not in response.text


def test_a_folder_that_cannot_be_written_to_is_reported_at_the_start(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match=r"feedback_folder .*file/feedback cannot be written to"):
        make_app(predictor, feedback_folder=str(tmp_path / "file" / "feedback"))


def test_without_a_folder_feedback_is_off(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor))
    assert status_and_code(post(client, CONSENT)) == (404, "not_found")
    assert client.get("/v1/model").json()["features"]["feedback"] is False
