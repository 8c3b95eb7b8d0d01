"""The client of one file: it talks to the real application, and waits when the service asks it to. A client that a
generator makes from the OpenAPI document does, too."""

import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
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

KEY = "a-long-enough-key-for-a-test"
RAW_BODIES = "content_type_overrides: {'image/*': application/octet-stream, 'video/*': application/octet-stream}"
"""For the generator, which knows no media types of images and clips."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "keys").write_text(f"{KEY}\n")
    settings = {"batches_folder": str(folder / "batches"), "api_keys_file": str(folder / "keys")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "POLL_S", 0.02)
        with served(make_app(Predictor(save_model(folder / "tiny-v1")), **settings)) as address:
            yield address


@pytest.fixture
def detector(address: str) -> Iterator[Detector]:
    with Detector(address, key=KEY) as detector:
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


@pytest.fixture
def generated(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that a generator has made from the OpenAPI document: a function for each route, and its types."""
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{address}/openapi.json").content)
    (tmp_path / "config.yaml").write_text(RAW_BODIES)
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--fail-on-warning"]
    command += ["--path", "openapi.json", "--config", "config.yaml", "--meta", "none", "--output-path", "generated"]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"  # it formats what it has written with ruff
    subprocess.run(command, cwd=tmp_path, env={"PATH": path}, check=True, timeout=60)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("detect", "detect_video", "create_batch", "show_batch", "show_results", "cancel_batch", "show_model")
    routes = {name: importlib.import_module(f"generated.api.default.{name}").sync for name in names}
    models, types = importlib.import_module("generated.models"), importlib.import_module("generated.types")
    connect = importlib.import_module("generated").AuthenticatedClient
    with connect(base_url=address, token=KEY, raise_on_unexpected_status=True) as client:
        yield SimpleNamespace(**routes, models=models, types=types, client=client)
    for name in [name for name in sys.modules if name.partition(".")[0] == "generated"]:
        del sys.modules[name]


def test_a_client_generated_from_the_document(generated: Any) -> None:
    client, models = generated.client, generated.models

    def file(data: bytes, name: str = "a.jpg", media_type: str = "image/jpeg") -> Any:
        return generated.types.File(payload=io.BytesIO(data), file_name=name, mime_type=media_type)

    assert generated.show_model(client=client).features.key
    form = models.DetectFilesBody(file=[file(image_bytes()), file(image_bytes(seed=1))])
    answer = generated.detect(client=client, body=form, faces=models.DetectFaces.OFF)
    assert [result.index for result in answer.results] == [0, 1]
    alone = generated.detect(client=client, body=file(image_bytes()), faces=models.DetectFaces.OFF)
    assert alone.results[0].p_fake == pytest.approx(answer.results[0].p_fake)
    assert generated.detect(client=client, body=file(b"no image")).error.code == "not_an_image"
    clip = generated.detect_video(client=client, body=file(make_clip(3)), frames=2)
    assert len(clip.frames) == 2
    form = models.CreateBatchBody(file=[file(image_bytes()), file(make_clip(3), "b.mp4", "video/mp4")])
    batch = generated.create_batch(client=client, body=form, idempotency_key="generated")
    assert generated.create_batch(client=client, body=form, idempotency_key="generated").id == batch.id
    deadline = time.monotonic() + 60
    while generated.show_batch(batch.id, client=client).done < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    image, clip = generated.show_results(batch.id, client=client).results
    assert image.image.verdict == answer.results[0].verdict
    assert len(clip.clip.frames) > 0
    assert generated.cancel_batch(batch.id, client=client).id == batch.id


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
