"""Images from URLs: only public addresses are contacted, whatever host names, redirects and name servers say."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.registry.predictor import Predictor
from serve_app import url_fetch
from tests.support.http_service import LIMITS, image_bytes, make_app, status_and_code


class Site(BaseHTTPRequestHandler):
    """A web site on this machine that stands for one on the internet."""

    requests: list[tuple[str, str]] = []  # noqa: RUF012 -- one site for all tests

    def do_GET(self) -> None:
        Site.requests.append((self.headers["Host"], self.path))
        port = self.server.server_address[1]
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {
            "/image": (200, {}, image_bytes()),
            "/text": (200, {"Content-Type": "image/jpeg"}, b"text"),
            "/moved": (302, {"Location": "/image"}, b""),
            "/round": (302, {"Location": "/round"}, b""),
            "/inside": (302, {"Location": f"http://inside.example:{port}/image"}, b""),
            "/metadata": (302, {"Location": "http://169.254.169.254/latest"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/large": (200, {}, b"x" * (LIMITS.max_bytes + 1)),
            "/gzip": (200, {"Content-Encoding": "gzip"}, b"x"),
            "/slow": (200, {}, image_bytes()),
        }
        status, headers, body = answers.get(self.path, (404, {}, b""))
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def open_internet(site: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """``site.example`` is public and is this machine; ``inside.example`` is not public."""
    is_public = url_fetch.is_public
    Site.requests.clear()

    async def resolve(host: str, _: int) -> list[str]:
        return {"site.example": ["127.0.0.1"], "inside.example": ["10.0.0.7"]}.get(host, [host])

    monkeypatch.setattr(url_fetch, "resolve", resolve)
    monkeypatch.setattr(url_fetch, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    monkeypatch.setattr(url_fetch, "PORTS", (80, 443, site))
    return site


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> TestClient:
    return TestClient(make_app(predictor, allow_url=True))


def post_url(client: TestClient, url: object) -> Any:
    return client.post("/v1/detect", json={"url": url})


def test_an_image_is_downloaded_and_scored(client: TestClient, open_internet: int) -> None:
    for path in ("/image", "/moved"):
        response = post_url(client, f"http://site.example:{open_internet}{path}")
        assert response.status_code == 200, response.text
        assert len(response.json()["results"]) == 1
        assert Site.requests[-1] == (f"site.example:{open_internet}", "/image")


@pytest.mark.parametrize("path", ["/inside", "/metadata", "/file", "/round", "/none", "/gzip"])
def test_a_url_that_does_not_lead_to_a_public_image_is_refused(
    client: TestClient, open_internet: int, path: str
) -> None:
    response = post_url(client, f"http://site.example:{open_internet}{path}")
    assert status_and_code(response) == (422, "bad_url")
    assert len(Site.requests) == (url_fetch.MAX_REDIRECTS + 1 if path == "/round" else 1)


def test_a_download_that_is_too_large_too_slow_or_not_an_image_is_refused(
    client: TestClient, open_internet: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_fetch, "TIMEOUT_S", 0.3)
    site = f"http://site.example:{open_internet}"
    assert status_and_code(post_url(client, f"{site}/large")) == (413, "too_large")
    assert status_and_code(post_url(client, f"{site}/text")) == (400, "not_an_image")
    assert status_and_code(post_url(client, f"{site}/slow")) == (422, "bad_url")


PRIVATE = [
    "http://127.0.0.1/x",
    "http://localhost/x",
    "http://[::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[::ffff:a00:1]/x",
    "http://[64:ff9b::7f00:1]/x",
    "http://[fec0::1]/x",
    "http://[::7f00:1]/x",
    "http://[::ffff:0:7f00:1]/x",
    "http://[3fff::1]/x",
    "http://[2001::1]/x",
    "http://[2001:20::1]/x",
    "http://168.63.129.16/machine",
    "http://[::ffff:168.63.129.16]/machine",
    "http://192.0.0.192/opc/v2/instance",
    "http://192.0.0.9/x",
    "http://192.88.99.1/x",
    "http://[2002:7f00:1::]/x",
    "http://[fe80::1]/x",
    "http://[fd00::1]/x",
    "http://0.0.0.0/x",
    "http://0/x",
    "http://2130706433/x",
    "http://0x7f.1/x",
    "http://10.1.2.3/x",
    "http://172.16.0.1/x",
    "http://192.168.1.1/x",
    "http://100.64.0.1/x",
    "http://169.254.169.254/latest/meta-data",
    "http://224.0.0.1/x",
    "http://255.255.255.255/x",
]
ODD = [
    "ftp://8.8.8.8/x",
    "file:///etc/passwd",
    "http://user:password@8.8.8.8/x",
    "http://8.8.8.8:22/x",
    "gopher://8.8.8.8/",
    "//8.8.8.8/x",
    "x",
    "",
    "http://",
    "http:///x",
    "http://[/x",
    "http://\x00/x",
    "http://8.8.8.8/" + "x" * 3000,
]


@pytest.mark.parametrize("url", PRIVATE + ODD)
def test_addresses_that_are_not_public_are_never_contacted(
    client: TestClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[object] = []

    async def send(_: object, request: object, **__: object) -> None:
        requests.append(request)

    monkeypatch.setattr(url_fetch.httpx.AsyncClient, "send", send)
    assert status_and_code(post_url(client, url)) == (422, "bad_url")
    assert requests == []


@pytest.mark.parametrize("address", ["8.8.8.8", "168.63.129.15", "192.0.1.1", "192.88.98.1", "2606:4700::1111"])
def test_neighbors_of_reserved_addresses_are_public(address: str) -> None:
    assert url_fetch.is_public(address)


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["8.8.8.8", "192.168.0.1"]

    monkeypatch.setattr(url_fetch, "resolve", resolve)
    assert status_and_code(post_url(client, "http://rebinding.example/x")) == (422, "bad_url")


def test_the_connection_goes_to_the_address_that_was_checked(
    client: TestClient, open_internet: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host name is resolved once, so a name server that changes its answer (DNS rebinding) has no effect."""
    answers = iter([["127.0.0.1"], ["10.0.0.7"]])

    async def resolve(_: str, __: int) -> list[str]:
        return next(answers)

    monkeypatch.setattr(url_fetch, "resolve", resolve)
    assert post_url(client, f"http://site.example:{open_internet}/image").status_code == 200
    assert next(answers) == ["10.0.0.7"]


def test_the_body_must_have_a_url(client: TestClient) -> None:
    json = {"Content-Type": "application/json"}
    assert status_and_code(client.post("/v1/detect", content=b"{", headers=json)) == (400, "bad_request")
    assert status_and_code(client.post("/v1/detect", content=b"[" * 9000, headers=json)) == (400, "bad_request")
    assert status_and_code(client.post("/v1/detect", content=b" " * 20_000, headers=json)) == (413, "too_large")
    for body in ([], {}, {"url": 1}, {"url": None}):
        assert status_and_code(client.post("/v1/detect", json=body)) == (422, "no_image")


def test_a_json_body_that_is_too_large_is_refused_with_its_limit(client: TestClient) -> None:
    refused = client.post("/v1/detect", json={"url": "https://example.org/" + 20_000 * "x"})
    assert status_and_code(refused) == (413, "too_large")
    assert refused.json()["error"]["message"] == "the request is larger than 16 KiB"


def test_downloads_are_off_by_default(predictor: Predictor) -> None:
    client = TestClient(make_app(predictor))
    assert status_and_code(post_url(client, "http://8.8.8.8/x")) == (415, "unsupported_media_type")
    body = client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]["requestBody"]
    assert "application/json" not in body["content"]
