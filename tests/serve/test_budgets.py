"""What a request may cost: CPU time, bytes and time, and what others notice when one is expensive."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.images import decoder, sandbox
from detector_core.images import faces as face_search
from detector_core.images.budget import CpuBudget
from detector_core.images.faces import Search
from detector_core.registry.predictor import Predictor
from serve_app import health
from serve_app.middleware import RequestEvent
from serve_app.settings import Limits
from tests.support.attacks import flat_image, heavy_clip, repeated_scans, tiff
from tests.support.clips import make_clip
from tests.support.faces import make_face
from tests.support.http_service import (
    JPEG,
    LIMITS,
    BrightnessClient,
    encode,
    image_bytes,
    make_app,
    status_and_code,
)
from tests.support.processes import children, wait_until_gone

LARGE = Limits(max_pixels=50_000_000)
MP4 = {"Content-Type": "video/mp4"}
HEAVY = repeated_scans(flat_image("JPEG", (4000, 3000)), 70)
"""An image within every limit of the decoder, which takes about a second of CPU time."""


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    decoder.CHILDREN.stop_idle()


@pytest.fixture
def events() -> list[RequestEvent]:
    return []


def client_for(predictor: Predictor, events: list[RequestEvent], **settings: Any) -> TestClient:
    return TestClient(make_app(predictor, observe=events.append, **settings))


def test_an_ordinary_request_reports_its_costs(predictor: Predictor, events: list[RequestEvent]) -> None:
    data = image_bytes()
    assert client_for(predictor, events).post("/v1/detect", content=data, headers=JPEG).status_code == 200
    (event,) = events
    assert event.bytes == len(data)
    assert 0 < event.cpu_s < 1
    assert event.over_budget == ""


def test_a_request_that_takes_too_much_cpu_time_is_413(predictor: Predictor, events: list[RequestEvent]) -> None:
    client = client_for(predictor, events, limits=LARGE.model_copy(update={"cpu_s": 0.1}))
    response = client.post("/v1/detect", content=HEAVY, headers=JPEG)
    assert status_and_code(response) == (413, "too_large")
    assert "CPU time" in response.json()["error"]["message"]
    assert events[0].over_budget == "cpu"
    assert events[0].cpu_s < 0.15


def test_images_of_a_request_share_its_cpu_time(predictor: Predictor, events: list[RequestEvent]) -> None:
    client = client_for(predictor, events, limits=LARGE.model_copy(update={"cpu_s": 1.5}))
    response = client.post("/v1/detect", files=[("file", HEAVY)] * 5)
    assert status_and_code(response) == (413, "too_large")
    assert events[0].over_budget == "cpu"
    assert events[0].cpu_s < 1.8


def test_searching_faces_counts(
    predictor: Predictor, events: list[RequestEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*_: object) -> Search:
        sum(range(3_000_000))
        return Search([], True)

    monkeypatch.setattr(face_search, "search", search)
    client = client_for(predictor, events, limits=LIMITS.model_copy(update={"cpu_s": 0.01}))
    response = client.post("/v1/detect?faces=on", content=image_bytes(), headers=JPEG)
    assert status_and_code(response) == (413, "too_large")
    assert events[0].over_budget == "cpu"


def test_a_clip_that_takes_too_much_cpu_time_is_413(predictor: Predictor, events: list[RequestEvent]) -> None:
    client = client_for(predictor, events, limits=LIMITS.model_copy(update={"video_cpu_s": 0.05}))
    response = client.post("/v1/detect/video", content=heavy_clip(200, (1280, 720)), headers=MP4)
    assert status_and_code(response) == (413, "too_large")
    assert events[0].over_budget == "cpu"
    assert events[0].cpu_s <= 0.1


def test_bytes_and_time_are_budgets_too(predictor: Predictor, events: list[RequestEvent]) -> None:
    client = client_for(predictor, events)
    assert client.post("/v1/detect", content=bytes(300_000), headers=JPEG).status_code == 413
    slow = client_for(predictor, events, limits=LARGE, timeout_s=0.2)
    assert slow.post("/v1/detect", content=HEAVY, headers=JPEG).status_code == 503
    assert [event.over_budget for event in events] == ["bytes", "time"]


def test_a_decoder_ends_when_the_time_of_its_request_is_up(predictor: Predictor, events: list[RequestEvent]) -> None:
    decoder.CHILDREN.stop_idle()
    decoder.CHILDREN.warm_up()
    pid = decoder.CHILDREN.idle[0].pid
    app = make_app(predictor, observe=events.append, limits=LARGE, timeout_s=0.2)
    with TestClient(app) as client:
        assert client.post("/v1/detect", content=HEAVY, headers=JPEG).status_code == 503
        wait_until_gone([pid], 30)


def stuck_jobs(app: FastAPI, pool: str, release: threading.Event) -> None:
    """Occupies every thread of a pool until ``release``."""
    decode_pool = getattr(app.state.service, pool)
    waiting = threading.Barrier(decode_pool.threads + 1)

    def block() -> None:
        waiting.wait(30)
        release.wait()

    for _ in range(decode_pool.threads):
        decode_pool._executor.submit(object(), block)
    waiting.wait(30)


def test_clips_do_not_delay_images(predictor: Predictor) -> None:
    app, release = make_app(predictor), threading.Event()
    try:
        stuck_jobs(app, "_clip_pool", release)
        response = TestClient(app).post("/v1/detect", content=image_bytes(), headers=JPEG)
        assert response.status_code == 200
    finally:
        release.set()


def test_a_request_with_many_images_leaves_a_thread_for_others(predictor: Predictor) -> None:
    app, release = make_app(predictor), threading.Event()
    pool, crowd = app.state.service._image_pool, object()
    waiting = threading.Barrier(pool.threads)

    def block() -> None:
        waiting.wait(30)
        release.wait()

    for _ in range(pool.threads - 1):
        pool._executor.submit(crowd, block)
    more = [pool._executor.submit(crowd, release.wait) for _ in range(10)]
    waiting.wait(30)
    try:
        response = TestClient(app).post("/v1/detect", content=image_bytes(), headers=JPEG)
        assert response.status_code == 200
        assert not any(future.running() for future in more)
    finally:
        release.set()


def test_images_of_one_request_share_its_face_search(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []

    def search(_: object, sharing: int) -> Search:
        shared.append(sharing)
        return Search([], True)

    monkeypatch.setattr(face_search, "search", search)
    client = TestClient(make_app(predictor))
    image = encode(Image.linear_gradient("L").resize((48, 48)), "JPEG")
    assert client.post("/v1/detect?faces=on", files=[("file", image)] * 3).status_code == 200
    assert client.post("/v1/detect/video?faces=on&frames=2", content=make_clip(6), headers=MP4).status_code == 200
    assert shared == [3, 3, 3, 2, 2]


def test_a_child_for_clips_gives_way_to_others() -> None:
    with sandbox.sample_frames(make_clip(40, size=(640, 480)), 16, max_s=60) as clip:
        next(clip.frames)
        (pid,) = [pid for pid, line in children(os.getpid()).items() if sandbox.__name__ in line]
        assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]) >= sandbox.NICENESS


@pytest.mark.parametrize("pool", ["_image_pool", "_clip_pool"])
def test_readiness_fails_while_decoding_is_stuck(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    app = make_app(predictor, timeout_s=0.05)
    monkeypatch.setattr(health, "GRACE_S", 0)
    release, started = threading.Event(), threading.Event()

    def block(_: object) -> None:
        started.set()
        release.wait()

    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        assert client.portal
        running = client.portal.start_task_soon(getattr(app.state.service, pool).run, CpuBudget(), block)
        try:
            assert started.wait(30)
            release.wait(0.06)
            response = client.get("/readyz")
            assert status_and_code(response) == (503, "unavailable")
            assert "stuck" in response.json()["error"]["message"]
        finally:
            release.set()
        running.result(30)
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", ["TIFF", "BMP"])
def test_formats_that_nobody_sends_are_off_unless_the_operator_turns_them_on(predictor: Predictor, name: str) -> None:
    data = image_bytes(format_=name)
    response = TestClient(make_app(predictor)).post("/v1/detect", content=data, headers=JPEG)
    assert status_and_code(response) == (415, "unsupported_media_type")
    message = response.json()["error"]["message"]
    assert message.startswith(f"{name} images are not accepted here: save the image as one of JPEG, PNG")
    assert "http.formats" in message
    accepting = TestClient(make_app(predictor, formats=["JPEG", name]))
    assert accepting.post("/v1/detect", content=data, headers=JPEG).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        tiff((100_000, 1), tile=(16, 16_000), shared=True),
        repeated_scans(flat_image("MPO", (4000, 3000)), 5000),
        repeated_scans(flat_image("JPEG", (4000, 3000)), 5000),
    ],
    ids=["tiles that share bytes", "scans of an MPO", "scans of a JPEG"],
)
def test_small_files_that_ask_for_much_work_are_refused_at_once(
    predictor: Predictor, events: list[RequestEvent], data: bytes
) -> None:
    assert len(data) < 400_000
    client = client_for(predictor, events, limits=LARGE, formats=["JPEG", "TIFF"])
    assert status_and_code(client.post("/v1/detect", content=data, headers=JPEG))[0] == 400
    assert events[0].cpu_s < 0.5


@pytest.mark.parametrize(("complete", "verdict"), [(True, "real"), (False, "uncertain")])
def test_a_crowd_is_never_called_real(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, complete: bool, verdict: str
) -> None:
    monkeypatch.setattr(face_search, "search", lambda *_: Search([make_face(20, 10, 30)], complete))
    dark = encode(Image.linear_gradient("L").resize((48, 48)).point(lambda gray: gray // 8), "JPEG")
    client = TestClient(make_app(predictor, BrightnessClient(predictor)))
    (result,) = client.post("/v1/detect?faces=on", content=dark, headers=JPEG).json()["results"]
    assert result["verdict"] == verdict
    assert ("crowd" in result["warnings"]) == (not complete)
