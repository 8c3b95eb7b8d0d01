"""The review over HTTP: the key of an operator, the order of the tags, and decisions that nobody overwrites."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.data import feedback, review
from detector_core.errors import BadConfig
from serve_app.settings import HttpSettings
from tests.support.http_service import make_app
from tests.support.tagged import MODEL, tagged_bytes

KEY = {"X-Operator-Key": "an-operator-s-key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tags: one that the service contradicted, given last, and one that it did not."""
    store = feedback.Store(tmp_path / "feedback", 10**8)
    store.add(tagged_bytes(1, "real"), "real", model=MODEL, verdict="real", p_fake=0.1)
    store.add(tagged_bytes(2, "fake"), "fake", model=MODEL, verdict="real", p_fake=0.2)
    return tmp_path / "feedback"


@pytest.fixture
def client(folder: Path, tmp_path: Path, predictor: Any) -> TestClient:
    (tmp_path / "operators").write_text("an-operator-s-key  # anna and ben\n")
    return TestClient(make_app(predictor, feedback_folder=str(folder), operator_keys_file=str(tmp_path / "operators")))


def decide(client: TestClient, id_: str, action: str, reviewer: str, **more: str) -> Any:
    body = {"action": action, "reviewer": reviewer, **more}
    return client.post(f"/v1/review/tags/{id_}", json=body, headers=KEY)


@pytest.mark.parametrize("headers", [{}, {"X-Operator-Key": "guessed"}, {"X-API-Key": "an-operator-s-key"}])
def test_without_an_operator_s_key_nothing_is_shown_or_decided(
    client: TestClient, folder: Path, headers: dict[str, str]
) -> None:
    id_ = review.read(folder)[0].record.id
    for answer in (
        client.get("/v1/review/tags", headers=headers),
        client.get(f"/v1/review/tags/{id_}/image", headers=headers),
        client.post(f"/v1/review/tags/{id_}", json={"action": "accept", "reviewer": "eve"}, headers=headers),
    ):
        assert answer.status_code == 401
        assert "the key of an operator is required: send it as X-Operator-Key: KEY" in answer.json()["error"]["message"]
    assert client.get("/review").status_code == 200, "the page itself holds no data"
    assert review.count_states(review.read(folder))["waiting"] == 2


def test_the_most_informative_tag_comes_first_with_its_image(client: TestClient, folder: Path) -> None:
    answer = client.get("/v1/review/tags", headers=KEY).json()
    assert answer["counts"] == {"waiting": 2, "accepted": 0, "rejected": 0, "disputed": 0}
    first, second = answer["tags"]
    assert (first["label"], first["verdict"], first["p_fake"], first["state"]) == ("fake", "real", 0.2, "waiting")
    assert second["label"] == "real"
    image = client.get(f"/v1/review/tags/{first['id']}/image", headers=KEY)
    assert image.content == Path(folder, review.read(folder)[0].record.image).read_bytes()
    assert image.headers["content-type"].startswith("image/")
    assert len(client.get("/v1/review/tags?limit=1", headers=KEY).json()["tags"]) == 1


def test_decisions_of_the_page_and_of_the_command_line_stand_side_by_side(client: TestClient, folder: Path) -> None:
    id_ = review.read(folder)[0].record.id
    accepted = decide(client, id_, "accept", " anna ", reason="the generator's page shows it").json()["tag"]
    assert accepted["state"] == "accepted"
    (decision,) = accepted["decisions"]
    assert (decision["reviewer"], decision["reason"]) == ("anna", "the generator's page shows it")
    review.decide(folder, [id_], "reject", reviewer="ben")
    (disputed,) = client.get("/v1/review/tags?state=disputed", headers=KEY).json()["tags"]
    assert [d["reviewer"] for d in disputed["decisions"]] == ["anna", "ben"]
    assert decide(client, id_, "undo", "anna").json()["tag"]["state"] == "rejected"
    again = decide(client, id_, "undo", "anna")
    assert (again.status_code, again.json()["error"]["code"]) == (422, "bad_parameter")
    assert "anna has decided nothing about" in again.json()["error"]["message"]


def test_a_tag_that_was_deleted_meanwhile_is_not_found(client: TestClient, folder: Path) -> None:
    first, second = (tag.record for tag in review.read(folder))
    Path(folder, second.image).unlink()
    review.delete(folder, [first.id], reviewer="ben")
    assert decide(client, first.id, "accept", "anna").status_code == 404
    assert client.get(f"/v1/review/tags/{second.id}/image", headers=KEY).status_code == 404
    assert client.get("/v1/review/tags/nothing/image", headers=KEY).status_code == 404
    assert not list((folder / review.DECISIONS).glob(f"{first.id}/*"))


@pytest.mark.parametrize(
    "body",
    [
        {"action": "delete", "reviewer": "anna"},
        {"action": "accept", "reviewer": "  "},
        {"action": "accept"},
        {"action": "accept", "reviewer": "anna", "reason": "x" * 501},
    ],
)
def test_what_is_no_decision_is_refused(client: TestClient, folder: Path, body: dict[str, str]) -> None:
    id_ = review.read(folder)[0].record.id
    answer = client.post(f"/v1/review/tags/{id_}", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_parameter")


def test_a_damaged_folder_is_said(client: TestClient, folder: Path) -> None:
    next((folder / feedback.RECORDS).iterdir()).write_text("{}")
    answer = client.get("/v1/review/tags", headers=KEY)
    assert answer.status_code == 503
    assert "the feedback folder cannot be read" in answer.json()["error"]["message"]


def test_without_the_setting_there_is_no_review(predictor: Any, folder: Path) -> None:
    client = TestClient(make_app(predictor, feedback_folder=str(folder)))
    assert client.get("/review").status_code == 404
    assert client.get("/v1/review/tags", headers=KEY).status_code == 404


def test_settings_that_cannot_work_are_named(predictor: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="operator_keys_file is for the review of feedback: set feedback_folder"):
        HttpSettings(operator_keys_file="keys")
    (tmp_path / "empty").touch()
    with pytest.raises(BadConfig, match=r"operator_keys_file .*empty holds no key"):
        make_app(predictor, feedback_folder=str(folder), operator_keys_file=str(tmp_path / "empty"))
