"""POST /v1/detect/video: the frames of a clip, its verdict, and refusals."""

import tempfile
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from detector_core.images import faces as face_search
from detector_core.images.faces import Search
from detector_core.registry.predictor import Predictor
from serve_app.middleware import RequestEvent
from serve_app.settings import Limits
from tests.support.clips import gray, held_frames, make_clip, sound_only, with_display_matrix
from tests.support.faces import make_face
from tests.support.http_service import BrightnessClient, image_bytes, make_app, status_and_code

MP4 = {"Content-Type": "video/mp4"}


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> TestClient:
    return TestClient(make_app(predictor, BrightnessClient(predictor)))


def post(client: TestClient, data: bytes, query: str = "") -> Any:
    return client.post(f"/v1/detect/video?{query}", content=data, headers=MP4)


def test_evenly_spaced_frames_are_scored_and_their_median_decides(client: TestClient) -> None:
    for response in (
        post(client, make_clip(50), "frames=5"),
        client.post("/v1/detect/video?frames=5", files={"file": ("secret.mp4", make_clip(50))}),
    ):
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["duration_s"] == pytest.approx(5, abs=0.2)
        assert [frame["time_s"] for frame in answer["frames"]] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.15)
        scores = [frame["p_fake"] for frame in answer["frames"]]
        assert scores == sorted(scores)
        assert answer["p_fake"] == scores[2]
        assert answer["verdict"] == "uncertain"
        assert answer["proportion_fake"] == sum(score >= 0.7 for score in scores) / 5
        assert (answer["scored_frames"], answer["retained"]) == (5, False)
        assert answer["warnings"] == ["demo_model", "cropped"]
        assert "secret" not in response.text
    assert len(post(client, make_clip(50)).json()["frames"]) == 16


def test_a_clip_without_a_face_has_no_verdict(client: TestClient) -> None:
    answer = post(client, make_clip(10), "frames=2&faces=on").json()
    assert (answer["verdict"], answer["p_fake"], answer["proportion_fake"]) == ("no_face", None, None)
    assert answer["scored_frames"] == 0
    assert [frame["verdict"] for frame in answer["frames"]] == ["no_face", "no_face"]


def test_frames_without_a_face_are_not_scored(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    face = make_face(20, 10, 30)
    monkeypatch.setattr(face_search, "search", lambda image, _: Search([face] if image.mean() > 170 else [], True))
    answer = post(client, make_clip(50), "frames=5&faces=on").json()
    assert [frame["verdict"] for frame in answer["frames"]] == ["no_face"] * 3 + ["uncertain", "fake"]
    assert answer["scored_frames"] == 2
    assert answer["proportion_fake"] == 0.5
    assert answer["frames"][4]["faces"][0]["box"] == [24, 14, 46, 36]


def test_a_frame_that_stays_counts_for_as_long_as_it_is_shown(client: TestClient) -> None:
    def frame(level: int) -> np.ndarray:
        return np.clip(gray(level).astype(int) + np.arange(-16, 16).repeat(2)[:, None], 0, 255).astype(np.uint8)

    recording = [(0, frame(210)), *((9000 + 20 * number, frame(40)) for number in range(50))]
    answer = post(client, held_frames(recording, 10_000)).json()
    assert [frame["time_s"] for frame in answer["frames"]] == pytest.approx(
        [10 * (n + 0.5) / 16 for n in range(16)], abs=0.001
    )
    assert [frame["verdict"] for frame in answer["frames"]] == ["fake"] * 14 + ["real"] * 2
    assert answer["verdict"] == "fake"
    assert (answer["proportion_fake"], answer["scored_frames"]) == (14 / 16, 16)


def test_a_clip_is_not_called_real_while_faces_were_left_out(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = [make_face(20, 10, 30), make_face(2, 2, 12)]
    monkeypatch.setattr(face_search, "search", lambda image, _: Search(faces[: 2 if image.mean() > 35 else 1], True))
    answers = [
        post(TestClient(make_app(predictor, BrightnessClient(predictor), limits=Limits(max_faces=1))), clip, "faces=on")
        for clip in (make_clip(5), make_clip(10))
    ]
    complete, cut = (answer.json() for answer in answers)
    assert complete["verdict"] == "real"
    assert cut["p_fake"] < 0.3
    assert cut["verdict"] == "uncertain"
    assert "faces_left_out" in cut["warnings"]
    assert [len(frame["faces_left_out"]) for frame in cut["frames"]] == sorted(
        len(frame["faces_left_out"]) for frame in cut["frames"]
    )


def test_a_clip_that_is_shown_differently_gets_a_warning(client: TestClient) -> None:
    tilted = with_display_matrix(make_clip(5), 0.7071, 0.7071, -0.7071, 0.7071)
    assert post(client, tilted).json()["warnings"] == ["demo_model", "not_as_shown", "cropped"]


REFUSED = {
    "text": (b"text", 400, "not_a_video"),
    "an image": (image_bytes(), 400, "not_a_video"),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 400, "not_a_video"),
    "only sound": (sound_only(), 400, "not_a_video"),
    "half a clip": (make_clip(10)[:600], 400, "not_a_video"),
    "empty": (b"", 400, "not_a_video"),
    "too long": (make_clip(30, fps=1), 413, "too_large"),
    "too many bytes": (b"x" * 1_000_001, 413, "too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_a_short_clip_is_refused(predictor: Predictor, name: str) -> None:
    data, status, code = REFUSED[name]
    client = TestClient(make_app(predictor, limits=Limits(max_video_bytes=1_000_000, max_video_s=20)))
    assert status_and_code(post(client, data)) == (status, code)


def test_other_bodies_and_invalid_parameters_are_refused(client: TestClient) -> None:
    url = "/v1/detect/video"
    assert status_and_code(client.post(url, files={"clip": make_clip(3)})) == (422, "no_video")
    assert status_and_code(client.post(url, content=make_clip(3), headers={"Content-Type": "text/plain"}))[0] == 415
    assert status_and_code(client.post(url, files=[("file", b"x")] * 2)) == (413, "too_large")
    for query in ("frames=0", "frames=17", "frames=x", "faces=maybe"):
        assert status_and_code(post(client, make_clip(3), query)) == (422, "bad_parameter")


def test_zero_frames_turn_clips_off(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor, limits=Limits(frames=0)))
    assert status_and_code(post(client, make_clip(3))) == (404, "not_found")
    assert client.get("/v1/model").json()["features"]["video"] is False


def test_a_clip_is_never_written_to_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("a temporary file was written")
    )
    data = make_clip(10) + b"\0\0\0\x08free" * 300_000
    assert client.post("/v1/detect/video?frames=2", files={"file": data}).status_code == 200


def test_an_event_counts_frames(predictor: Predictor) -> None:
    events: list[RequestEvent] = []
    post(TestClient(make_app(predictor, observe=events.append)), make_clip(10), "frames=3")
    (event,) = events
    assert (event.route, event.images, len(event.p_fakes)) == ("/v1/detect/video", 3, 3)
