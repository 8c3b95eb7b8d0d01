"""The routes: answers about images, refusals, pages, probes and CORS."""

import io
import logging
import tempfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.images.decode import decode
from detector_core.registry.predictor import Predictor
from serve_app.errors import Unavailable
from serve_app.settings import Limits
from tests.support import provenance
from tests.support.http_service import JPEG, LIMITS, FailingClient, encode, image_bytes, make_app, status_and_code
from tests.support.models import SIZE, save_model


def test_a_raw_body_gets_the_score_of_the_core(client: TestClient, predictor: Predictor) -> None:
    data = image_bytes((50, 40))
    (expected,) = predictor.predict([decode(data)])
    response = client.post("/v1/detect", content=data, headers={"Content-Type": "image/jpeg"})
    assert response.status_code == 200
    (result,) = response.json()["results"]
    assert result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-6)
    assert result["verdict"] == expected.verdict
    assert result["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert result["thresholds"] == {"real_below": 0.3, "fake_above": 0.7}
    assert result["model"] == {"name": "tiny", "version": "tiny-v1", "sha256": predictor.info.sha256}
    assert result["warnings"] == ["demo_model", "cropped"]
    assert result["retained"] is False
    assert response.json()["timing_ms"]["total"] > 0


def test_results_are_in_the_order_of_the_files(client: TestClient, predictor: Predictor) -> None:
    files = [image_bytes(seed=seed, format_=format_) for seed, format_ in enumerate(("JPEG", "PNG", "WEBP"))]
    expected = [prediction.p_fake for prediction in predictor.predict([decode(data) for data in files])]
    response = client.post("/v1/detect", files=[("file", (f"{i}", data)) for i, data in enumerate(files)])
    results = response.json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2]
    assert [result["p_fake"] for result in results] == pytest.approx(expected, abs=1e-6)


def test_an_image_smaller_than_the_input_of_the_model_gets_a_warning(client: TestClient) -> None:
    response = client.post("/v1/detect", files={"file": image_bytes((SIZE - 1, SIZE - 1))})
    assert response.json()["results"][0]["warnings"] == ["demo_model", "upscaled"]


def test_only_the_answers_of_a_demo_model_are_marked(tmp_path: Path) -> None:
    trained_on_photos = Predictor(save_model(tmp_path / "photos-v1", generated=False))
    client = TestClient(make_app(trained_on_photos, faces="off"))
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).json()["results"][0]["warnings"] == []


def test_provenance_is_answered_and_never_changes_a_score(
    client: TestClient, predictor: Predictor, tmp_path: Path
) -> None:
    plain = image_bytes((64, 48))
    camera = encode(Image.open(io.BytesIO(plain)), "PNG", exif=provenance.camera_exif())
    texts = {"parameters": provenance.STABLE_DIFFUSION}
    signed = provenance.signed(plain, "image/jpeg")
    trusted = {
        source: provenance.signed(plain, "image/jpeg", source) for source in (provenance.GENERATED, provenance.CAPTURED)
    }
    (tmp_path / "signers.pem").write_text(provenance.signers())
    listing = TestClient(make_app(predictor, signers_file=str(tmp_path / "signers.pem")))

    def ask(of: TestClient, data: bytes) -> tuple[float, list[tuple[str, str, str]]]:
        result = of.post("/v1/detect", content=data, headers=JPEG).json()["results"][0]
        return result["p_fake"], [(claim["kind"], claim["says"], claim["standing"]) for claim in result["provenance"]]

    p_fake, claims = ask(client, plain)
    assert claims == []
    assert ask(client, signed) == (p_fake, [("c2pa", "generated", "signed")])
    assert ask(listing, trusted[provenance.GENERATED]) == (p_fake, [("c2pa", "generated", "listed_signer")])
    assert ask(listing, trusted[provenance.CAPTURED]) == (p_fake, [("c2pa", "camera", "listed_signer")])
    lossless, _ = ask(client, encode(Image.open(io.BytesIO(plain))))
    assert ask(client, camera) == (lossless, [("camera", "camera", "unsigned")])
    written = provenance.png_with(texts, Image.open(io.BytesIO(plain)))
    assert ask(client, written) == (lossless, [("generator_text", "generated", "unsigned")])


BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}
BAD = {
    "text with the type of an image": ({"content": b"hello", "headers": JPEG}, 400, "not_an_image"),
    "empty body": ({"content": b"", "headers": JPEG}, 400, "not_an_image"),
    "empty file": ({"files": {"file": b""}}, 400, "not_an_image"),
    "truncated image": ({"content": image_bytes()[:-200], "headers": JPEG}, 400, "not_an_image"),
    "form that ends early": ({"content": b"--b\r\nContent", "headers": BOUNDARY}, 400, "bad_request"),
    "form without boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "bad_request",
    ),
    "garbage form": ({"content": b"x" * 99, "headers": BOUNDARY}, 400, "bad_request"),
    "too many bytes": ({"content": b"x" * 200_001, "headers": JPEG}, 413, "too_large"),
    "too many bytes in a form": ({"files": {"file": b"x" * 200_001}}, 413, "too_large"),
    "too many bytes, length unknown": ({"content": iter([b"x" * 99_999] * 3), "headers": JPEG}, 413, "too_large"),
    "too many files": ({"files": [("file", image_bytes())] * 4}, 413, "too_large"),
    "too many pixels": ({"content": image_bytes((1, 100_001), format_="PNG"), "headers": JPEG}, 413, "too_large"),
    "another type": (
        {"content": b"{}", "headers": {"Content-Type": "application/json"}},
        415,
        "unsupported_media_type",
    ),
    "no type": ({"content": image_bytes()}, 415, "unsupported_media_type"),
    "no field named file": ({"files": {"image": image_bytes()}}, 422, "no_image"),
    "a field that is no file": ({"data": {"file": "x"}, "files": {"x": b"y"}}, 422, "no_image"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_refused_with_a_code(client: TestClient, name: str) -> None:
    request, status, code = BAD[name]
    assert status_and_code(client.post("/v1/detect", **request)) == (status, code)


def test_a_pixel_bomb_is_refused_without_decoding_it(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < LIMITS.max_bytes
    response = client.post("/v1/detect", content=buffer.getvalue(), headers={"Content-Type": "image/png"})
    assert status_and_code(response) == (413, "too_large")
    assert "pixels" in response.json()["error"]["message"]


def test_the_bad_image_of_several_is_named_by_its_number(client: TestClient) -> None:
    response = client.post("/v1/detect", files=[("file", image_bytes()), ("file", b"text")])
    assert status_and_code(response) == (400, "not_an_image")
    assert response.json()["error"]["message"].startswith("image 2 of 2: ")


def test_a_file_name_is_neither_logged_nor_returned(
    client: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "holiday-with-anna"
    with caplog.at_level(logging.DEBUG):
        answers = [client.post("/v1/detect", files={"file": (secret, data)}) for data in (image_bytes(), b"text")]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert all(secret not in answer.text for answer in answers)
    assert secret not in caplog.text + "".join(capfd.readouterr())


def test_an_upload_is_never_written_to_disk(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger than what a form parser keeps in memory by default."""
    data = image_bytes((1000, 1000), format_="PNG")
    assert len(data) > 2 * 2**20

    def rollover(_: object) -> None:
        pytest.fail("a temporary file was written")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    model_client = FailingClient(RuntimeError("the model was reached"))
    client = TestClient(make_app(predictor, model_client, limits=Limits()), raise_server_exceptions=False)
    assert status_and_code(client.post("/v1/detect", files={"file": data})) == (500, "internal")


def test_probes_model_pages_and_openapi_document(client: TestClient) -> None:
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    model = client.get("/v1/model").json()
    assert (model["version"], model["generated"], model["image_size"]) == ("tiny-v1", True, SIZE)
    assert model["test"][0]["auc"] == 0.9
    for path in ("/", "/docs", "/static/page.js", "/static/style.css", "/static/docs.js", "/static/icon.svg"):
        response = client.get(path)
        assert response.status_code == 200
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    body = client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]
    assert set(body["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert {"400", "413", "415", "422", "503"} <= set(body["responses"])


def test_unknown_paths_and_methods_have_the_same_form_of_error(client: TestClient) -> None:
    assert status_and_code(client.get("/nope")) == (404, "not_found")
    assert status_and_code(client.get("/static/nope.js")) == (404, "not_found")
    assert status_and_code(client.get("/static/../routes.py")) == (404, "not_found")
    assert status_and_code(client.get("/v1/detect")) == (405, "method_not_allowed")


def test_a_busy_model_is_503_with_retry_after(predictor: Predictor) -> None:
    busy = FailingClient(Unavailable("too many images are waiting", retry_after_s=2))
    client = TestClient(make_app(predictor, busy))
    for response in (client.post("/v1/detect", content=image_bytes(), headers=JPEG), client.get("/readyz")):
        assert status_and_code(response) == (503, "unavailable")
        assert response.headers["Retry-After"] == "2"
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("allowed", "origin", "answered"),
    [
        ([], "https://other.example", None),
        (["https://other.example"], "https://other.example", "https://other.example"),
        (["https://other.example"], "https://third.example", None),
    ],
)
def test_only_allowed_origins_may_read_answers(
    predictor: Predictor, allowed: list[str], origin: str, answered: str | None
) -> None:
    client = TestClient(make_app(predictor, cors_origins=allowed))
    response = client.post("/v1/detect", content=image_bytes(), headers={**JPEG, "Origin": origin})
    assert response.headers.get("access-control-allow-origin") == answered


@pytest.mark.parametrize(("allowed", "status"), [([], 405), (["https://other.example"], 200)])
def test_preflight_requests_are_answered_only_with_allowed_origins(
    predictor: Predictor, allowed: list[str], status: int
) -> None:
    client = TestClient(make_app(predictor, cors_origins=allowed))
    preflight = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/detect", headers=preflight).status_code == status
