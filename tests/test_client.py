"""The client of one file: it talks to the real application, and waits when the service asks it to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import detector_client
from clients.detector_client import Detector, DetectorError
from detector_core.registry.predictor import Predictor
from serve_app import batches
from tests.support.clips import make_clip
from tests.support.http_service import image_bytes, make_app
from tests.support.models import save_model
from tests.support.web_page import served


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "keys").write_text("a-long-enough-key-for-a-test\n")
    settings = {"batches_folder": str(folder / "batches"), "api_keys_file": str(folder / "keys")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "POLL_S", 0.02)
        with served(make_app(Predictor(save_model(folder / "tiny-v1")), **settings)) as address:
            yield address


@pytest.fixture
def detector(address: str) -> Iterator[Detector]:
    with Detector(address, key="a-long-enough-key-for-a-test") as detector:
        yield detector


def test_images_and_clips(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(image_bytes())
    first, second = detector.detect(tmp_path / "a.jpg", image_bytes(seed=1), faces="off")
    assert [first["index"], second["index"]] == [0, 1]
    assert detector.detect(str(tmp_path / "a.jpg"))[0]["p_fake"] == pytest.approx(first["p_fake"])
    assert len(detector.detect_clip(make_clip(3), frames=2)["frames"]) == 2
    assert detector.model()["features"]["key"]


def test_batches(detector: Detector) -> None:
    files = [image_bytes(), make_clip(3), b"no image"]
    batch = detector.send_batch(files, idempotency_key="mine")
    assert detector.send_batch(files, idempotency_key="mine")["id"] == batch["id"]
    results = list(detector.results(batch["id"], poll_s=0.02, timeout_s=20))
    kinds = [next(kind for kind in ("image", "clip", "error") if result[kind]) for result in results]
    assert kinds == ["image", "clip", "error"]
    other = detector.send_batch(files)
    assert other["id"] != batch["id"]
    assert detector.cancel(other["id"])["id"] == other["id"]
    waiting = detector.send_batch(files)
    with pytest.raises(TimeoutError, match="of 3 files are done"):
        list(detector.results(waiting["id"], poll_s=1, timeout_s=0))


def test_a_refusal_says_why(address: str, detector: Detector) -> None:
    with pytest.raises(DetectorError, match="not an image") as refused:
        detector.detect(b"text")
    assert (refused.value.status, refused.value.code) == (400, "not_an_image")
    assert refused.value.request_id
    with Detector(address) as stranger, pytest.raises(DetectorError, match="a valid API key is required"):
        stranger.detect(image_bytes())


def answering(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A service that gives one answer after another."""
    left, requests = iter(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), requests


def test_it_waits_as_long_as_the_service_says_and_sends_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(detector_client.time, "sleep", pauses.append)
    busy = httpx.Response(503, headers={"Retry-After": "7"}, json={"error": {}})
    transport, requests = answering(
        busy, httpx.ConnectError("refused"), httpx.Response(429, text="x"), httpx.Response(202, json={"id": "1"})
    )
    assert Detector("http://service", transport=transport).send_batch([b"x"]) == {"id": "1"}
    assert pauses == [7, 2, 4]
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len({request.content.count(b"x") > 0 for request in requests}) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(503, json={"error": {"code": "unavailable", "message": "busy", "request_id": "7"}}), "busy"),
        (httpx.Response(200, text="<html>"), "is not JSON: is this the service"),
        (httpx.Response(404, json={"detail": "Not Found"}), "has no known form: is this the service"),
    ],
)
def test_it_gives_up_in_the_end(answer: httpx.Response, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_client.time, "sleep", lambda _: None)
    transport, _ = answering(answer, answer)
    with pytest.raises(DetectorError, match=message):
        Detector("http://service", transport=transport, retries=1).model()
    transport, _ = answering(httpx.ConnectError("refused"), httpx.ConnectError("refused"))
    with pytest.raises(httpx.ConnectError):
        Detector("http://service", transport=transport, retries=1).model()


def test_the_command_line(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(image_bytes())
    (tmp_path / "b.mp4").write_bytes(make_clip(3))
    monkeypatch.setattr(detector_client, "Detector", lambda _: detector)

    def run(*arguments: Any) -> Any:
        monkeypatch.setattr(detector_client.sys, "argv", ["detector_client.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            detector_client.main()
        return ended.value.code

    assert run("http://testserver", tmp_path / "a.jpg", tmp_path / "b.mp4", tmp_path / "gone") == 1
    image, clip, gone = map(json.loads, capsys.readouterr().out.splitlines())
    assert image["verdict"]
    assert clip["frames"]
    assert "No such file" in gone["error"]
    assert str(run("http://testserver")).startswith("usage: ")
