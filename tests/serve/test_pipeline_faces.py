"""Faces in an image: none, one that fills it, several; heat maps; and the score of jobs.evaluate over HTTP."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.errors import BadConfig
from detector_core.images import faces as face_search
from detector_core.images.decode import Pixels, decode
from detector_core.images.faces import Face
from detector_core.images.preprocess import square
from detector_core.registry.predictor import Prediction, Predictor
from serve_app.settings import Limits
from tests.support.http_service import JPEG, PredictorClient, image_bytes, make_app, saved
from tests.support.models import SIZE

WIDE = Limits(max_bytes=2_000_000, max_pixels=2_000_000)


def face(left: float, top: float, right: float, bottom: float, score: float = 0.99) -> Face:
    return Face(box=(left, top, right, bottom), score=score, landmarks=np.zeros((5, 2), np.float32))


def ask(client: TestClient, data: bytes, query: str = "faces=on") -> dict[str, Any]:
    response = client.post(f"/v1/detect?{query}", content=data, headers=JPEG)
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return dict(result)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Face]:
    """What the search finds, whatever the image."""
    faces: list[Face] = []
    monkeypatch.setattr(face_search, "detect", lambda _: sorted(faces, key=lambda one: -one.side))
    return faces


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> TestClient:
    return TestClient(make_app(predictor, limits=WIDE))


def landscape() -> bytes:
    """A sky that fades into hills, with some noise."""
    y, x = np.mgrid[:300, :500]
    hills = 180 + 40 * np.sin(x / 70) + 20 * np.sin(x / 23)
    sky = np.stack([120 + y / 4, 160 + y / 5, 235 - y / 8], axis=-1)
    ground = np.stack([60 + y / 10, 110 - y / 12, 50 + x / 40], axis=-1)
    noise = np.random.default_rng(0).normal(0, 6, (300, 500, 1))
    return saved(Image.fromarray((np.where((y > hills)[..., None], ground, sky) + noise).clip(0, 255).astype(np.uint8)))


def test_a_landscape_has_no_face(client: TestClient) -> None:
    result = ask(client, landscape())
    assert result["verdict"] == "no_face"
    assert (result["p_fake"], result["confidence"], result["crop_box"], result["heatmap"]) == (None,) * 4
    assert (result["faces"], result["warnings"]) == ([], [])
    assert result["size"] == {"width": 500, "height": 300}
    assert result["model"]["version"] == "tiny-v1"
    assert ask(client, landscape(), "faces=on&explain=true")["heatmap"] is None


def test_without_the_search_the_centre_square_is_judged(client: TestClient, predictor: Predictor) -> None:
    data = landscape()
    for query in ("faces=off", "faces=auto", ""):  # the tiny model was trained on generated data
        result = ask(client, data, query)
        assert result["crop_box"] == [100, 0, 400, 300]
        assert result["warnings"] == ["cropped"]
        assert result["p_fake"] == pytest.approx(predictor.predict([decode(data)])[0].p_fake, abs=1e-6)


def test_a_face_is_cropped_and_judged(client: TestClient, predictor: Predictor, found: list[Face]) -> None:
    found.append(face(200, 100, 240, 150))
    data = image_bytes((400, 300), format_="PNG")
    result = ask(client, data)
    assert result["crop_box"] == [186, 91, 254, 159]
    assert result["warnings"] == []
    expected = predictor.predict([decode(data)[91:159, 186:254]])[0]
    (only,) = result["faces"]
    assert only["box"] == [200, 100, 240, 150]
    assert only["crop_box"] == result["crop_box"]
    assert only["score"] == 0.99
    assert only["p_fake"] == result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-6)
    assert only["verdict"] == result["verdict"] == expected.verdict
    assert "small" in only["quality"]


def test_the_likeliest_fake_of_several_decides(client: TestClient, found: list[Face]) -> None:
    found += [face(20, 20, 60 + size, 60 + size) for size in range(0, 90, 15)]
    result = ask(client, image_bytes((400, 300), format_="PNG"))
    assert len(result["faces"]) == WIDE.max_faces == 5
    assert [one["box"][2] for one in result["faces"]] == [135, 120, 105, 90, 75]
    worst = max(result["faces"], key=lambda one: one["p_fake"])
    assert (result["p_fake"], result["verdict"], result["crop_box"]) == (
        worst["p_fake"],
        worst["verdict"],
        worst["crop_box"],
    )
    assert "several_faces" in result["warnings"]


def test_a_portrait_is_judged_whole(client: TestClient, predictor: Predictor, found: list[Face]) -> None:
    found += [face(40, 40, 215, 230), face(1, 1, 45, 45)]
    data = image_bytes((256, 256), format_="PNG")
    result = ask(client, data)
    assert result["crop_box"] == [0, 0, 256, 256]
    assert [one["box"] for one in result["faces"]] == [[40, 40, 215, 230]]
    assert result["p_fake"] == pytest.approx(predictor.predict([decode(data)])[0].p_fake, abs=1e-6)
    assert result["warnings"] == ["several_faces"]


def test_a_small_face_is_enlarged_and_said_so(client: TestClient, found: list[Face]) -> None:
    found.append(face(200, 100, 218, 119))
    result = ask(client, image_bytes((400, 300), format_="PNG"))
    assert result["crop_box"][2] - result["crop_box"][0] < SIZE
    assert result["warnings"] == ["upscaled"]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_are_those_of_the_upright_image(client: TestClient, found: list[Face], orientation: int) -> None:
    found.append(face(10, 10, 50, 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = ask(client, image_bytes((300, 200), exif=exif.tobytes()))
    assert result["size"] == ({"width": 300, "height": 200} if orientation == 3 else {"width": 200, "height": 300})
    assert result["faces"][0]["box"] == [10, 10, 50, 60]


def test_the_heat_map_lies_on_what_decided(client: TestClient, found: list[Face]) -> None:
    found.append(face(200, 100, 240, 150))
    result = ask(client, image_bytes((400, 300), format_="PNG"), "faces=on&explain=true")
    heat = result["heatmap"]
    assert heat["toward"] == ("real" if result["verdict"] == "real" else "fake")
    assert heat["box"] == result["crop_box"]
    drawn = Image.open(io.BytesIO(base64.b64decode(heat["png_base64"])))
    assert (drawn.mode, drawn.size) == ("L", (SIZE, SIZE))
    assert np.asarray(drawn)[0, [0, -1]].tolist() == [0, 255]
    assert ask(client, image_bytes((400, 300), format_="PNG"))["heatmap"] is None


def test_a_network_that_cannot_be_explained_has_no_heat_map(predictor: Predictor) -> None:
    class Blind(PredictorClient):
        async def explain(self, image_SSC: Pixels, toward: str) -> np.ndarray:  # noqa: ARG002 -- of the interface
            raise BadConfig("no feature map")

    client = TestClient(make_app(predictor, Blind(predictor)))
    assert ask(client, image_bytes(), "explain=true")["heatmap"] is None


def test_a_coarse_jpeg_is_recompressed(client: TestClient) -> None:
    assert ask(client, image_bytes(quality=30), "")["warnings"] == ["recompressed"]
    assert ask(client, image_bytes(quality=90), "")["warnings"] == []


def test_portraits_of_the_data_set_score_over_http_as_they_are_judged(faces: Path, predictor: Predictor) -> None:
    """jobs.evaluate judges the decoded image's square; so must the service, with and without the search."""
    client = TestClient(make_app(predictor, limits=WIDE))
    folder = faces / "real_vs_fake/real-vs-fake/test"
    paths = [path for label in ("real", "fake") for path in sorted((folder / label).iterdir())[:6]]
    for path in paths:
        data = path.read_bytes()
        pixels_SSC = square(decode(data), predictor.info.preprocess)
        expected: Prediction = predictor.predict([pixels_SSC])[0]
        for query in ("faces=on", "faces=off"):
            result = ask(client, data, query)
            assert result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-3)
            assert result["crop_box"] == [0, 0, 256, 256]
        assert len(ask(client, data)["faces"]) == 1
