"""jobs.common.loopback: requests to this machine never go through a proxy."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from detector_core.errors import DetectorError
from jobs.common import loopback


class Answering(BaseHTTPRequestHandler):
    """Answers with the body of the request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """A server on this machine."""
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy in the environment that does not answer; nothing is exempt from it."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{loopback.free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, address)
    return address


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs until the end of the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def test_ports_are_different_and_not_those_of_outgoing_connections() -> None:
    ports = loopback.free_ports(50)
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 50
    assert max(ports) < first


def test_a_port_that_is_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    used, free = loopback.free_ports(2)
    monkeypatch.setattr(loopback, "PORTS", [used, free])
    with socket.socket() as server:
        server.bind(("127.0.0.1", used))
        assert loopback.free_port() == free
        with pytest.raises(OSError, match=f"fewer than 2 ports from {used} to {free} are free"):
            loopback.free_ports(2)


def ask_as_libraries_do(url: str) -> int:
    """The status of a request that obeys the environment as it is now; urlopen keeps that of its first call."""
    with urllib.request.build_opener().open(url, timeout=5) as response:
        status: int = response.status
        return status


def test_a_server_on_this_machine_is_asked_directly(url: str, proxy: str, process: "subprocess.Popen[bytes]") -> None:
    with pytest.raises(OSError, match="refused"):
        ask_as_libraries_do(url)
    loopback.wait_until_ready(process, url, within_s=5)
    assert loopback.send(urllib.request.Request(url, data=b"body"), timeout_s=5) == b"body"
    assert os.environ["http_proxy"] == proxy


def test_a_server_that_does_not_answer_or_has_ended_is_an_error(process: "subprocess.Popen[bytes]") -> None:
    url = f"http://127.0.0.1:{loopback.free_port()}/"
    with pytest.raises(DetectorError, match=r"was not ready within 0\.1 s"):
        loopback.wait_until_ready(process, url, within_s=0.1)
    process.kill()
    process.wait()
    with pytest.raises(DetectorError, match="ended before it was ready"):
        loopback.wait_until_ready(process, url, within_s=5)


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "example.org, localhost"}, "example.org,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "example.org"}, "example.org,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_libraries_and_child_processes_are_told_to_ask_directly(
    url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    loopback.exempt_from_proxies()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == expected
    assert ask_as_libraries_do(url) == 200


def test_importing_a_job_is_enough(proxy: str) -> None:  # noqa: ARG001
    code = "import os, jobs; print(os.environ['no_proxy'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["localhost,127.0.0.1,::1"]
