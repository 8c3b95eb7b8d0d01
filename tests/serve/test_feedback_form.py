"""Feedback and tagged requests: an image is stored only with consent, with the service's answer about it, and once."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.data import feedback
from detector_core.errors import BadConfig
from detector_core.images.decode import decode
from detector_core.registry.predictor import Predictor
from serve_app import receipts
from tests.support.http_service import JPEG, image_bytes, make_app, status_and_code

CONSENT = {"consent": "true", "label": "real"}
KEY = "receipt-key"


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


def detect(client: TestClient, data: bytes, identifier: str = "abc-1") -> dict[str, Any]:
    """The result for an image."""
    answer = client.post("/v1/detect", files={"file": data}, headers={"X-Request-ID": identifier})
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def test_an_image_with_consent_is_stored_without_its_file_name(
    client: TestClient, folder: Path, predictor: Predictor
) -> None:
    data = image_bytes(seed=3)
    result = detect(client, data)
    response = post(client, {**CONSENT, "label": "fake", "receipt": result["receipt"]}, data)
    assert response.status_code == 201
    answer = response.json()
    (record,) = feedback.read(folder)
    assert answer == {"id": record.id, "stored": True, "new": True, "request_id": response.headers["X-Request-ID"]}
    assert (record.label, record.verdict, record.request_id) == ("fake", result["verdict"], "abc-1")
    assert record.p_fake == result["p_fake"]
    assert record.model == {"name": "tiny", "version": "tiny-v1", "sha256": predictor.info.sha256}
    assert (decode((folder / record.image).read_bytes()) == decode(data)).all()
    assert all("anna" not in path.name and b"anna" not in path.read_bytes() for path in folder.rglob("*.*"))


def test_an_image_that_was_not_analyzed_is_stored_without_a_verdict(client: TestClient, folder: Path) -> None:
    assert post(client, CONSENT).status_code == 201
    (record,) = feedback.read(folder)
    assert (record.verdict, record.request_id, record.model["name"]) == ("", "", "tiny")


def test_another_replica_accepts_the_receipt_and_counts_the_gift_once(
    client: TestClient, folder: Path, predictor: Predictor
) -> None:
    data = image_bytes()
    other = TestClient(make_app(predictor, feedback_folder=str(folder)))
    signed = [detect(client, data, identifier)["receipt"] for identifier in ("first", "second")]
    answers = [post(other, {**CONSENT, "receipt": receipt}, data) for receipt in signed]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert [answer.json()["new"] for answer in answers] == [True, False]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    (record,) = feedback.read(folder)
    assert record.request_id == "first"


def test_the_receipt_is_signed_with_a_key_that_only_the_service_can_read(client: TestClient, folder: Path) -> None:
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert (folder / KEY).read_bytes().hex() not in detect(client, image_bytes())["receipt"]


def test_claims_about_the_answer_are_checked(client: TestClient, folder: Path) -> None:
    data = image_bytes()
    result = detect(client, data)
    truth = {"receipt": result["receipt"], "verdict": result["verdict"], "request_id": "abc-1"}
    other = "fake" if result["verdict"] != "fake" else "real"
    payload, _, signature = result["receipt"].rpartition(".")
    lies = (
        {"verdict": other},
        {"request_id": "abc-2"},
        {"receipt": detect(client, image_bytes(seed=9))["receipt"]},
        {"receipt": f"{payload[:-1]}{'A' if payload[-1] != 'A' else 'B'}.{signature}"},
        {"receipt": "x"},
        {"receipt": ""},
    )
    for lie in lies:
        assert status_and_code(post(client, {**CONSENT, **truth, **lie}, data)) == (422, "bad_receipt"), lie
    assert feedback.read(folder) == []
    assert post(client, {**CONSENT, **truth}, data).status_code == 201


def test_a_key_file_that_holds_no_key_is_reported_at_the_start(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "_WRITTEN_S", 0)
    folder.mkdir()
    (folder / KEY).write_bytes(b"short")
    with pytest.raises(BadConfig, match=f"{KEY} is not a key"):
        make_app(predictor, feedback_folder=str(folder))
    (folder / KEY).unlink()
    (folder / KEY).mkdir()
    with pytest.raises(BadConfig, match=f"{KEY}, the key of the feedback's receipts, cannot be used"):
        make_app(predictor, feedback_folder=str(folder))


REFUSED = {
    "no consent": ({"label": "real"}, image_bytes(), 422, "no_consent"),
    "consent denied": ({"label": "real", "consent": "false"}, image_bytes(), 422, "no_consent"),
    "no label": ({"consent": "true"}, image_bytes(), 422, "bad_parameter"),
    "an unknown label": ({"consent": "true", "label": "maybe"}, image_bytes(), 422, "bad_parameter"),
    "a verdict without a receipt": ({**CONSENT, "verdict": "real"}, image_bytes(), 422, "bad_receipt"),
    "an id without a receipt": ({**CONSENT, "request_id": "abc-1"}, image_bytes(), 422, "bad_receipt"),
    "no image": (CONSENT, b"text", 400, "not_an_image"),
    "too many bytes": (CONSENT, b"x" * 200_001, 413, "too_large"),
    "too many pixels": (CONSENT, image_bytes((1, 100_001), format_="PNG"), 413, "too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_form_is_refused_and_stores_nothing(client: TestClient, folder: Path, name: str) -> None:
    fields, data, status, code = REFUSED[name]
    assert status_and_code(post(client, fields, data)) == (status, code)
    assert [path.name for path in folder.iterdir()] == [KEY]


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


def test_a_tagged_request_is_answered_and_stored_like_feedback_about_its_answer(
    client: TestClient, folder: Path, predictor: Predictor
) -> None:
    files = [image_bytes(seed=seed) for seed in (3, 4)]
    plain = detect(client, files[0])
    assert (plain["tag"], plain["retained"]) == (None, False)
    upload = [("file", ("anna.jpg", data)) for data in files]
    response = client.post("/v1/detect?tag=fake&consent=true", files=upload, headers={"X-Request-ID": "abc-2"})
    assert response.status_code == 200
    first, second = response.json()["results"]
    assert (first["verdict"], first["p_fake"], first["retained"]) == (plain["verdict"], plain["p_fake"], True)
    records = {record.id: record for record in feedback.read(folder)}
    assert first["tag"] == {
        "label": "fake",
        "id": first["tag"]["id"],
        "new": True,
        "message": f"tagged fake, predicted {plain['verdict']}: waits for review",
    }
    assert list(records) == [first["tag"]["id"], second["tag"]["id"]]
    record = records[first["tag"]["id"]]
    assert (record.label, record.verdict, record.p_fake) == ("fake", plain["verdict"], plain["p_fake"])
    assert (record.request_id, record.model["sha256"]) == ("abc-2", predictor.info.sha256)
    assert (decode((folder / record.image).read_bytes()) == decode(files[0])).all()
    form = post(client, {**CONSENT, "label": "fake", "receipt": first["receipt"]}, files[0])  # the page's way
    assert (form.status_code, form.json()["id"], form.json()["new"]) == (200, record.id, False)
    raw = client.post("/v1/detect?tag=fake&consent=true", content=files[0], headers=JPEG).json()["results"][0]
    assert (raw["tag"]["id"], raw["tag"]["new"]) == (record.id, False)


WRONG_TAGS = {
    "a tag without consent": ("tag=real", "no_consent"),
    "consent denied": ("tag=real&consent=false", "no_consent"),
    "consent without a tag": ("consent=true", "bad_parameter"),
    "an unknown tag": ("tag=maybe&consent=true", "bad_parameter"),
}


@pytest.mark.parametrize("name", WRONG_TAGS)
def test_a_wrong_tag_is_refused_and_stores_nothing(client: TestClient, folder: Path, name: str) -> None:
    query, code = WRONG_TAGS[name]
    response = client.post(f"/v1/detect?{query}", content=image_bytes(), headers=JPEG)
    assert status_and_code(response) == (422, code)
    assert [path.name for path in folder.iterdir()] == [KEY]


def test_a_service_that_stores_nothing_takes_no_tag(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor))
    response = client.post("/v1/detect?tag=real&consent=true", content=image_bytes(), headers=JPEG)
    assert status_and_code(response) == (422, "bad_parameter")
    assert "http.feedback_folder" in response.json()["error"]["message"]


def test_givers_are_told_apart_by_key_or_network_without_storing_either(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("secret-a\nsecret-b\n")
    keyed = make_app(predictor, feedback_folder=str(folder), api_keys_file=str(tmp_path / "keys"))
    open_to_all = make_app(predictor, feedback_folder=str(folder))
    senders = [
        TestClient(keyed, headers={"X-API-Key": "secret-a"}),
        TestClient(keyed, headers={"Authorization": "Bearer secret-a"}),
        TestClient(keyed, headers={"X-API-Key": "secret-b"}),
        TestClient(open_to_all, client=("192.0.2.1", 1)),
        TestClient(open_to_all, client=("192.0.2.2", 1)),
    ]
    for seed, sender in enumerate(senders):
        assert post(sender, CONSENT, image_bytes(seed=seed)).status_code == 201
    givers = [record.giver for record in feedback.read(folder)]
    assert givers[0] == givers[1]
    assert len(set(givers)) == 4
    stored = b"".join(path.read_bytes() for path in (folder / "records").iterdir())
    assert b"secret" not in stored
    assert b"192.0.2" not in stored


def test_without_a_folder_feedback_is_off(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor))
    assert status_and_code(post(client, CONSENT)) == (404, "not_found")
    assert client.get("/v1/model").json()["features"]["feedback"] is False
    assert detect(client, image_bytes())["receipt"] is None
