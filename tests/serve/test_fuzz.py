"""Fuzzing: random bytes and requests cause no 5xx answer, no crash, no memory leak, and no costly request.

The suite sends a few hundred. To send ten thousand, as ``make faults`` does, and print memory and the largest costs:

  DETECTOR_FUZZ=10000 .venv/bin/python -m pytest -n0 -s tests/serve/test_fuzz.py
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from detector_core.images import decoder
from detector_core.images.formats import BUILT_IN as FORMATS
from detector_core.registry.predictor import Predictor
from serve_app import url_fetch
from serve_app.middleware import RequestEvent
from tests.support.attacks import flat_image, repeated_scans, tiff
from tests.support.clips import make_clip
from tests.support.http_service import JPEG, encode, image_bytes, make_app, status_and_code

EXAMPLES = int(os.environ.get("DETECTOR_FUZZ", "300"))
GROWTH_MIB = 150
QUERIES = ("", "", "", "", "explain=true", "faces=on")
_exif = Image.Exif()
_exif[0x0112], _exif[0x010E] = 6, "x"
MAX_CPU_S = 1.5
"""CPU-seconds that a request with an image of up to LIMITS.max_pixels may take, however it is built."""
MAX_CLIP_CPU_S = 4.0
"""The same for a clip, with the start of its decoder."""
SEEDS = [
    *(image_bytes(format_=format_) for format_ in FORMATS),
    image_bytes(format_="MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    repeated_scans(flat_image("JPEG", (300, 300)), 190),
    repeated_scans(flat_image("MPO", (300, 300)), 190),
    tiff((300, 300), tile=(16, 16), shared=True),
    tiff((300, 300), tile=(16, 16), shared=False),
    image_bytes(format_="TIFF", compression="tiff_lzw"),
    image_bytes(format_="GIF", save_all=True, append_images=[Image.new("RGB", (48, 48))] * 3, comment=b"x" * 300),
    image_bytes(format_="AVIF", save_all=True, append_images=[Image.new("RGB", (48, 48))] * 2),
    image_bytes(format_="JPEG", progressive=True, exif=_exif.tobytes()),
    image_bytes(format_="PNG", exif=_exif.tobytes()),
    image_bytes(format_="WEBP", exif=_exif.tobytes(), lossless=True),
    encode(Image.new("RGBA", (40, 40), (9, 9, 9, 99)), "WEBP"),
    encode(Image.new("P", (40, 40), 3), "PNG"),
    encode(Image.new("CMYK", (40, 40), (9, 9, 9, 9)), "JPEG"),
]


CLIPS = [
    make_clip(6),
    make_clip(6, codec="libvpx", container="webm"),
    make_clip(6, codec="mjpeg", container="avi", strict="unofficial"),
]
POSTS, GETS = ("/v1/detect", "/v1/detect/video", "/v1/feedback"), ("/v1/model", "/healthz", "/readyz")
DOCUMENTED = [
    *(("POST", path, mode) for path in POSTS for mode in schemathesis.GenerationMode),
    *(("GET", path, schemathesis.GenerationMode.POSITIVE) for path in GETS),
]


def resident_mib() -> float:
    """Resident memory of this process."""
    line = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line
    return int(line[1]) / 1024


def cpu_seconds() -> float:
    """CPU time of this process, of its children that have ended, and of the decoders that wait for work."""
    times = os.times()
    ended = times.user + times.system + times.children_user + times.children_system
    idle = (Path(f"/proc/{child.pid}/schedstat").read_text() for child in decoder.CHILDREN.idle)
    return ended + sum(int(text.split()[0]) for text in idle) / 1e9


class Costs:
    """Sends requests and checks what each costs.

    Attributes:
        largest: CPU-seconds of the most expensive request, as measured here and as the service reports it.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._events: list[RequestEvent] = []
        app = make_app(predictor, observe=self._events.append, formats=list(FORMATS), faces="off")
        self._client = TestClient(app)
        self.largest = 0.0, 0.0

    def post(self, path: str, data: bytes, content_type: str, limit_s: float) -> Any:
        """Sends a body; fails if that takes more than ``limit_s`` of CPU time."""
        before = cpu_seconds()
        response = self._client.post(path, content=data, headers={"Content-Type": content_type})
        measured, reported = cpu_seconds() - before, self._events.pop().cpu_s
        self.largest = max(self.largest[0], measured), max(self.largest[1], reported)
        assert measured < limit_s
        assert reported < limit_s
        assert response.status_code == 200 or status_and_code(response)[0] in (400, 413, 415)
        return response


@pytest.fixture(scope="module")
def costs(predictor: Predictor) -> Iterator[Costs]:
    costs = Costs(predictor)
    for seed in SEEDS:
        costs.post("/v1/detect?faces=on", seed, "image/jpeg", 60)  # loads what the first image needs
    costs.largest = 0.0, 0.0
    yield costs
    measured, reported = costs.largest
    print(f"\nCPU-seconds of the most expensive request: {measured:.2f} measured, {reported:.2f} reported")
    decoder.CHILDREN.stop_idle()


@pytest.fixture(scope="module")
def flat_memory(client: TestClient) -> object:
    for seed in SEEDS * 8:
        client.post("/v1/detect?faces=on&explain=true", content=seed, headers=JPEG)
    before = resident_mib()
    yield
    after = resident_mib()
    print(f"\nmemory: {before:.0f} MiB before, {after:.0f} MiB after {EXAMPLES} images and as many forms")
    assert after - before < GROWTH_MIB


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # "Corrupt EXIF data" is a line in the log, not a failure
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.integers(0, len(SEEDS) - 1),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=5),
    keep=st.one_of(st.just(10**6), st.integers(0, 8000)),
    query=st.sampled_from(QUERIES),
)
def test_no_image_causes_a_server_error_or_costs_much(
    costs: Costs,
    flat_memory: object,  # noqa: ARG001 -- measures
    kind: int,
    changes: list[tuple[int, bytes]],
    keep: int,
    query: str,
) -> None:
    data = mutated(SEEDS[kind], changes, keep)
    costs.post(f"/v1/detect?{query}", data, "image/jpeg", MAX_CPU_S)


def mutated(seed: bytes, changes: list[tuple[int, bytes]], keep: int) -> bytes:
    """The beginning of a file with some bytes replaced."""
    data = bytearray(seed[:keep])
    for offset, patch in changes:
        data[offset : offset + len(patch)] = patch
    return bytes(data)


@settings(max_examples=max(12, EXAMPLES // 20), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.integers(0, len(CLIPS) - 1),
    changes=st.lists(st.tuples(st.integers(0, 2500), st.binary(max_size=6)), max_size=8),
    keep=st.one_of(st.just(10**6), st.integers(0, 3000)),
)
def test_no_clip_causes_a_server_error_or_costs_much(
    costs: Costs, kind: int, changes: list[tuple[int, bytes]], keep: int
) -> None:
    costs.post("/v1/detect/video?frames=2", mutated(CLIPS[kind], changes, keep), "video/mp4", MAX_CLIP_CPU_S)


@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    boundary=st.binary(min_size=1, max_size=20).filter(lambda value: b"\r" not in value and b"\n" not in value),
    parts=st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=60)), max_size=6),
    tail=st.binary(max_size=40),
)
def test_no_form_causes_a_server_error(
    client: TestClient,
    flat_memory: object,  # noqa: ARG001 -- measures
    boundary: bytes,
    parts: list[tuple[bytes, bytes]],
    tail: bytes,
) -> None:
    body = b"".join(
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary, head, part) for head, part in parts
    )
    headers = {b"Content-Type": b"multipart/form-data; boundary=" + boundary}
    for path in ("/v1/detect", "/v1/detect/video", "/v1/feedback"):
        response = client.post(path, content=body + tail, headers=headers)
        assert status_and_code(response)[0] in (400, 404, 413, 422)


@pytest.fixture(scope="module")
def documented(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    """The OpenAPI document of an application with every feature on."""
    folder = tmp_path_factory.mktemp("schema")
    (folder / "keys").write_text("key\n")
    app = make_app(
        predictor,
        allow_url=True,
        feedback_folder=str(folder / "feedback"),
        api_keys_file=str(folder / "keys"),
        requests_per_minute=10**6,
    )
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("method", "path", "mode"), DOCUMENTED)
def test_answers_conform_to_the_openapi_document(
    documented: schemathesis.BaseSchema,
    method: str,
    path: str,
    mode: schemathesis.GenerationMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(url_fetch, "resolve", resolve)
    checks = [
        schemathesis.checks.not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        response_headers_conformance,
    ]

    @settings(max_examples=max(15, EXAMPLES // 50), deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(case=documented[path][method].as_strategy(generation_mode=mode), key=st.sampled_from(["key", "key", "no"]))
    def check(case: schemathesis.Case, key: str) -> None:
        case.headers = {**(case.headers or {}), "X-API-Key": key}
        response = case.call()
        case.validate_response(response, checks=checks)

    check()
