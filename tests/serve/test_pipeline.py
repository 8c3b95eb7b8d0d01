"""Faces in an image: none, one that fills it, several; and the heat map of the decisive one."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.errors import BadConfig
from detector_core.evaluation import calibration
from detector_core.images import faces as face_search
from detector_core.images.align import INSET
from detector_core.images.decode import Pixels, decode
from detector_core.images.faces import Face, Search
from detector_core.images.preprocess import square
from detector_core.registry.predictor import Prediction, Predictor
from serve_app.settings import Limits
from tests.support.faces import make_face
from tests.support.http_service import JPEG, PredictorClient, encode, image_bytes, make_app
from tests.support.images import noise, png_chunk
from tests.support.models import SIZE

LARGE = Limits(max_bytes=2_000_000, max_pixels=2_000_000)


def detect(client: TestClient, data: bytes, query: str = "faces=on") -> dict[str, Any]:
    """The only result of a request with one image; its warnings are those about the image, not about the model."""
    response = client.post(f"/v1/detect?{query}", content=data, headers=JPEG)
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    result["warnings"].remove("demo_model")
    return dict(result)


@pytest.fixture
def detected(monkeypatch: pytest.MonkeyPatch) -> list[Face]:
    """What the face detector returns, whatever the image."""
    faces: list[Face] = []
    monkeypatch.setattr(face_search, "search", lambda *_: Search(sorted(faces, key=lambda face: -face.side), True))
    return faces


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> TestClient:
    return TestClient(make_app(predictor, limits=LARGE))


def landscape() -> bytes:
    """A sky that fades into hills, with some noise."""
    y, x = np.mgrid[:300, :500]
    hills = 180 + 40 * np.sin(x / 70) + 20 * np.sin(x / 23)
    sky = np.stack([120 + y / 4, 160 + y / 5, 235 - y / 8], axis=-1)
    ground = np.stack([60 + y / 10, 110 - y / 12, 50 + x / 40], axis=-1)
    noise = np.random.default_rng(0).normal(0, 6, (300, 500, 1))
    pixels = np.where((y > hills)[..., None], ground, sky) + noise
    return encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def test_an_image_without_a_face_has_no_score(client: TestClient) -> None:
    result = detect(client, landscape())
    assert result["verdict"] == "no_face"
    assert (result["p_fake"], result["confidence"], result["crop_box"], result["heatmap"]) == (None,) * 4
    assert (result["faces"], result["warnings"]) == ([], [])
    assert result["size"] == {"width": 500, "height": 300}
    assert result["model"]["version"] == "tiny-v1"
    assert detect(client, landscape(), "faces=on&explain=true")["heatmap"] is None


@pytest.mark.parametrize("query", ["faces=off", "faces=auto", ""])  # the tiny model was trained on generated data
def test_the_center_square_is_scored_without_face_search(client: TestClient, predictor: Predictor, query: str) -> None:
    data = landscape()
    result = detect(client, data, query)
    assert result["crop_box"] == [100, 0, 400, 300]
    assert result["warnings"] == ["cropped"]
    assert result["p_fake"] == pytest.approx(predictor.predict([decode(data)])[0].p_fake, abs=1e-6)


def test_a_face_is_cropped_and_scored(client: TestClient, predictor: Predictor, detected: list[Face]) -> None:
    detected.append(make_face(200, 100, SIZE))
    data = image_bytes((400, 300), format_="PNG")
    result = detect(client, data)
    assert result["crop_box"] == pytest.approx([200, 100, 200 + SIZE, 100 + SIZE], abs=1)
    expected = predictor.predict([decode(data)[100 : 100 + SIZE, 200 : 200 + SIZE]])[0]
    (face,) = result["faces"]
    assert face["box"] == [round(value) for value in detected[0].box]
    assert face["crop_box"] == result["crop_box"]
    assert face["score"] == 0.99
    assert face["p_fake"] == result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-3)
    assert face["verdict"] == result["verdict"] == expected.verdict
    assert "small" in face["quality"]


def test_the_face_that_is_most_likely_fake_decides(client: TestClient, detected: list[Face]) -> None:
    sides = (50, 70, 90, 110, 130, 150)
    detected += [make_face(20, 20, side) for side in sides]
    result = detect(client, image_bytes((400, 300), format_="PNG"))
    assert len(result["faces"]) == LARGE.max_faces == 5
    rights = [face["crop_box"][2] for face in result["faces"]]
    assert rights == pytest.approx([20 + side * (1 + INSET) / 2 for side in reversed(sides[1:])], abs=1)
    decisive = max(result["faces"], key=lambda face: face["p_fake"])
    for field in ("p_fake", "verdict", "crop_box"):
        assert result[field] == decisive[field]
    assert result["warnings"] == ["several_faces", "faces_left_out"]
    assert result["faces_left_out"] == [[round(value) for value in detected[0].box]]


@pytest.mark.parametrize(("p_fake", "verdict"), [(0.1, "uncertain"), (0.5, "uncertain"), (0.9, "fake")])
def test_an_image_is_not_called_real_while_faces_were_left_out(
    predictor: Predictor, detected: list[Face], p_fake: float, verdict: str
) -> None:
    class FixedClient(PredictorClient):
        async def predict(self, image_SSC: Pixels) -> Prediction:  # noqa: ARG002 -- of the interface
            info = self.predictor.info
            return Prediction(
                p_fake=p_fake, logit=0.0, verdict=calibration.verdict(p_fake, info.calibration), model=info
            )

    limits = Limits(max_bytes=2_000_000, max_pixels=2_000_000, max_faces=2)
    client = TestClient(make_app(predictor, FixedClient(predictor), limits=limits))
    detected += [make_face(20, 20, side) for side in (90, 110)]
    data = image_bytes((400, 300), format_="PNG")
    complete = detect(client, data)
    assert complete["verdict"] == ("real" if p_fake == 0.1 else verdict)
    assert (complete["warnings"], complete["faces_left_out"]) == (["several_faces"], [])
    detected.append(make_face(200, 100, 50))
    result = detect(client, data)
    assert (result["verdict"], result["p_fake"]) == (verdict, p_fake)
    assert result["confidence"] == complete["confidence"] == max(p_fake, 1 - p_fake)
    assert [face["box"] for face in result["faces"]] == [face["box"] for face in complete["faces"]]
    assert len(result["faces_left_out"]) == 1


@pytest.mark.parametrize("query", ["faces=on", "faces=off"])
@pytest.mark.parametrize(
    ("image", "warning"),
    [
        (Image.new("RGB", (1, 1)), "too_small"),
        (Image.new("RGB", (SIZE // 2 - 1, 400), (200, 150, 100)), "too_small"),
        (Image.new("L", (400, 300), 128), "blank"),
        (Image.new("RGBA", (400, 300), (200, 150, 100, 0)), "blank"),
    ],
    ids=["one pixel", "a strip", "gray", "transparent"],
)
def test_an_image_that_shows_nothing_has_no_score(
    client: TestClient, detected: list[Face], image: Image.Image, warning: str, query: str
) -> None:
    detected.append(make_face(0, 0, 300))
    result = detect(client, encode(image), query)
    assert (result["verdict"], result["p_fake"], result["faces"]) == ("no_face", None, [])
    assert result["warnings"] == [warning]


def test_what_was_not_used_of_a_file_is_said(client: TestClient) -> None:
    frames = [noise(size=(64, 64)), noise(size=(64, 64)).rotate(90)]
    data = encode(frames[0], save_all=True, append_images=frames[1:])
    broken = data[:-12] + png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0" + data[-12:]
    assert detect(client, broken, "faces=off")["warnings"] == ["metadata_dropped", "animated"]


def test_an_aligned_portrait_is_scored_as_a_whole(
    client: TestClient, predictor: Predictor, detected: list[Face]
) -> None:
    detected += [make_face(5, 5, 246), make_face(1, 1, 60)]
    data = image_bytes((256, 256), format_="PNG")
    result = detect(client, data)
    portrait, behind = result["faces"]
    assert portrait["crop_box"] == [0, 0, 256, 256]
    assert portrait["p_fake"] == pytest.approx(predictor.predict([decode(data)])[0].p_fake, abs=1e-6)
    assert behind["box"] == [round(value) for value in detected[1].box]
    assert result["p_fake"] == max(portrait["p_fake"], behind["p_fake"])
    assert result["warnings"] == ["several_faces"]


def test_a_face_smaller_than_the_input_of_the_model_gets_a_warning(client: TestClient, detected: list[Face]) -> None:
    detected.append(make_face(200, 100, SIZE - 8))
    result = detect(client, image_bytes((400, 300), format_="PNG"))
    assert result["crop_box"][2] - result["crop_box"][0] < SIZE
    assert result["warnings"] == ["upscaled"]


@pytest.mark.parametrize(("orientation", "size"), [(3, (300, 200)), (6, (200, 300)), (8, (200, 300))])
def test_sizes_and_boxes_are_those_of_the_upright_image(
    client: TestClient, detected: list[Face], orientation: int, size: tuple[int, int]
) -> None:
    detected.append(make_face(10, 10, 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = detect(client, image_bytes((300, 200), exif=exif.tobytes()))
    assert (result["size"]["width"], result["size"]["height"]) == size
    assert result["faces"][0]["box"] == [round(value) for value in detected[0].box]


def test_the_heat_map_covers_the_decisive_crop(client: TestClient, detected: list[Face]) -> None:
    detected.append(make_face(200, 100, 64))
    result = detect(client, image_bytes((400, 300), format_="PNG"), "faces=on&explain=true")
    heatmap = result["heatmap"]
    assert heatmap["toward"] == ("real" if result["verdict"] == "real" else "fake")
    left, top, right, bottom = heatmap["box"]
    assert [left, top, right, bottom] == result["crop_box"]
    image = Image.open(io.BytesIO(base64.b64decode(heatmap["png_base64"])))
    assert (image.mode, image.size) == ("L", (right - left, bottom - top))
    middle = np.asarray(image)[image.height // 2].astype(int)
    start, half, end = (middle[round(part * (image.width - 1))] for part in (0.06, 0.5, 0.94))
    assert start < 60 < 120 < half < 140 < 195 < end  # a ramp that rises to the right


def test_without_explain_there_is_no_heat_map(client: TestClient) -> None:
    assert detect(client, image_bytes())["heatmap"] is None


def test_a_network_without_feature_maps_has_no_heat_map(predictor: Predictor) -> None:
    class UnexplainableClient(PredictorClient):
        async def explain(self, image_SSC: Pixels, toward: str) -> np.ndarray:  # noqa: ARG002 -- of the interface
            raise BadConfig("the network has no feature maps")

    client = TestClient(make_app(predictor, UnexplainableClient(predictor)))
    assert detect(client, image_bytes(), "explain=true")["heatmap"] is None


@pytest.mark.parametrize(("quality", "warnings"), [(30, ["recompressed"]), (90, [])])
def test_a_jpeg_of_low_quality_gets_a_warning(client: TestClient, quality: int, warnings: list[str]) -> None:
    assert detect(client, image_bytes(quality=quality), "")["warnings"] == warnings


def test_real_portraits_get_the_score_of_evaluation(faces: Path, predictor: Predictor) -> None:
    """jobs.evaluate scores the square of the decoded image; so must the service, with and without face search."""
    client = TestClient(make_app(predictor, limits=LARGE))
    folder = faces / "real_vs_fake/real-vs-fake/test"
    paths = [path for label in ("real", "fake") for path in sorted((folder / label).iterdir())[:6]]
    for path in paths:
        data = path.read_bytes()
        (expected,) = predictor.predict([square(decode(data), predictor.info.preprocess)])
        for query in ("faces=on", "faces=off"):
            result = detect(client, data, query)
            assert result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-3)
            assert result["crop_box"] == [0, 0, 256, 256]
        assert len(detect(client, data)["faces"]) == 1
