"""The service without HTTP: a file gets the answer that it gets over HTTP."""

import asyncio
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.errors import BadImage
from detector_core.registry.predictor import Predictor
from serve_app.local import LocalService
from tests.support.clips import make_clip
from tests.support.http_service import image_bytes, make_app

OWN = {"index", "request_id", "retained", "receipt", "tag", "timing_ms", "heatmap"}
"""Of a request, or measured."""


def answer(predictor: Predictor, data: bytes, **options: Any) -> dict[str, Any]:
    return asyncio.run(LocalService(predictor).answer(data, **options))


@pytest.mark.parametrize(
    "data",
    [
        image_bytes((64, 48)),
        image_bytes((48, 48), quality=20),
        image_bytes((20, 20), format_="PNG"),
        image_bytes((4, 4), format_="PNG"),
        image_bytes(format_="WEBP"),
        image_bytes(format_="TIFF"),
    ],
    ids=["landscape", "recompressed", "upscaled", "too small", "webp", "off in the service unless turned on"],
)
def test_an_image_gets_the_answer_of_the_service(predictor: Predictor, data: bytes) -> None:
    ours = answer(predictor, data)
    with TestClient(make_app(predictor, formats=["JPEG", "PNG", "WEBP", "TIFF"])) as client:
        (theirs,) = client.post("/v1/detect", content=data, headers={"Content-Type": "image/jpeg"}).json()["results"]
    assert set(theirs) - set(ours) == OWN - {"timing_ms", "heatmap"}
    assert {name: ours[name] for name in set(ours) - OWN} == {name: theirs[name] for name in set(theirs) - OWN}


def test_a_clip_gets_the_answer_of_the_service(predictor: Predictor) -> None:
    clip = make_clip(20)
    ours = answer(predictor, clip)
    with TestClient(make_app(predictor)) as client:
        theirs = client.post("/v1/detect/video", content=clip, headers={"Content-Type": "video/mp4"}).json()
    assert len(ours["frames"]) == 16
    assert {name: ours[name] for name in set(ours) - OWN} == {name: theirs[name] for name in set(theirs) - OWN}


def test_a_heat_map_comes_when_asked(predictor: Predictor) -> None:
    assert answer(predictor, image_bytes())["heatmap"] is None
    assert answer(predictor, image_bytes(), explain=True)["heatmap"]["box"] == [0, 0, 48, 48]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"some text", "not an image: known formats are .*; nor a clip: MP4"),
        (image_bytes()[:300], "damaged image"),
        (make_clip(20)[:2000], "the clip cannot be read"),
    ],
    ids=["empty", "text", "half an image", "half a clip"],
)
def test_what_cannot_be_read_is_named(predictor: Predictor, data: bytes, words: str) -> None:
    with pytest.raises(BadImage, match=words):
        answer(predictor, data)
