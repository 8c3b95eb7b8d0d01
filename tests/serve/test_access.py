"""API keys and the rate limit."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from detector_core.errors import BadConfig
from detector_core.registry.predictor import Predictor
from serve_app import access
from serve_app.access import AccessControl
from tests.support.http_service import JPEG, image_bytes, make_app, status_and_code


def post(client: TestClient, **headers: str) -> Any:
    return client.post("/v1/detect", content=image_bytes(), headers={**JPEG, **headers})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst-key\n\nsecond-key  # of the newsroom\n")
    return path


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "third"}, {"X-API-Key": ""}, {"X-API-Key": "# ours"}, {"Authorization": "Basic x"}]
)
def test_a_request_without_a_valid_key_is_refused(
    predictor: Predictor, key_file: Path, headers: dict[str, str]
) -> None:
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    for path in ("/v1/detect", "/v1/detect/video", "/v1/feedback"):
        response = client.post(path, content=image_bytes(), headers={**JPEG, **headers})
        assert status_and_code(response) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_is_accepted_in_either_header(predictor: Predictor, key_file: Path) -> None:
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    assert post(client, Authorization="Bearer first-key").status_code == 200
    assert post(client, **{"X-API-Key": "second-key"}).status_code == 200


def test_pages_probes_and_the_model_need_no_key(predictor: Predictor, key_file: Path) -> None:
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    for path in ("/v1/model", "/healthz", "/readyz", "/", "/static/page.js", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/model").json()["features"]["key"] is True
    operation = client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]
    assert operation["security"]
    assert "401" in operation["responses"]


def test_a_key_file_is_read_again_when_it_changes(
    predictor: Predictor, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_RELOAD_S", -1)
    client = TestClient(make_app(predictor, api_keys_file=str(key_file)))
    key_file.write_text("new-key\n")
    os.utime(key_file, ns=(1, 1))
    assert post(client, **{"X-API-Key": "new-key"}).status_code == 200
    assert post(client, **{"X-API-Key": "first-key"}).status_code == 401
    key_file.unlink()
    assert post(client, **{"X-API-Key": "new-key"}).status_code == 200


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_key_file_without_keys_is_reported_at_the_start(
    predictor: Predictor, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadConfig, match="api_keys_file"):
        make_app(predictor, api_keys_file=str(path))


def test_requests_over_the_rate_limit_are_refused_with_retry_after(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor, requests_per_minute=2))
    assert [post(client).status_code for _ in range(2)] == [200, 200]
    response = post(client)
    assert status_and_code(response) == (429, "too_many_requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert client.get("/v1/model").status_code == 200


def test_the_rate_limit_counts_each_client_address_separately(predictor: Predictor) -> None:
    app = make_app(predictor, requests_per_minute=1)
    assert post(TestClient(app)).status_code == 200
    assert post(TestClient(app)).status_code == 429
    assert post(TestClient(app, client=("10.1.1.1", 1))).status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("::ffff:10.0.0.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("unix", "198.51.100.1", "unix"),
    ],
)
def test_only_trusted_proxies_may_forward_a_client_address(peer: str, forwarded: str, counted: str) -> None:
    control = AccessControl(None, 1, ["10.0.0.0/8"])
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    request = Request({"type": "http", "client": (peer, 1), "headers": headers})
    assert control.client_address(request) == counted


def test_a_trusted_proxy_that_is_not_an_address_is_reported_at_the_start(predictor: Predictor) -> None:
    with pytest.raises(BadConfig, match="trusted_proxies"):
        make_app(predictor, trusted_proxies=["proxy.example"])
