"""The front: a real HAProxy with the configuration that Ray writes, before a server that answers what it was sent."""

import contextlib
import dataclasses
import http.client
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from jobs.common.loopback import free_port
from serve_app import front
from serve_app.errors import CODES, OTHER_CODES
from serve_app.front import Front
from tests.support.front import LIMITS, Echo, Running, start, stop, write_configuration

ROOT = Path(__file__).parents[2]
BURST = 250 * 2**20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Recorder", (Echo,), {"paths": paths}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    running = start(tmp_path_factory.mktemp("front"), [server.server_port])
    running.paths = paths
    yield running
    stop(running)
    server.shutdown()
    server.server_close()
    thread.join()


def check_error(answer: tuple[int, dict[str, str], Any], status: int, code: str) -> None:
    """An error of HAProxy has the same form as one of the service."""
    found, headers, body = answer
    assert (found, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"code", "message", "request_id"}
    assert body["error"]["request_id"] == headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-request-id"])
    assert headers["cache-control"] == "no-store"


def test_every_error_has_a_code_that_the_service_documents() -> None:
    assert {code for code, _ in front.ERRORS.values()} <= set(CODES.values()) | set(OTHER_CODES)


def test_a_client_cannot_choose_its_address(running: Running) -> None:
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Request-Timeout-Seconds": "-1"}
    for source in ("127.0.0.1", "127.0.0.2"):
        _, _, body = running.request("GET", "/x", headers=forged, source=source)
        names = {name.lower(): value for name, value in body["headers"]}
        assert names["x-forwarded-for"] == source
        assert {"x-forwarded-proto", "x-request-timeout-seconds"}.isdisjoint(names)
        assert len([name for name, _ in body["headers"] if name.lower() == "x-forwarded-for"]) == 1


def test_a_trusted_proxy_may_say_for_whom_it_asks(running: Running) -> None:
    _, _, body = running.request("GET", "/x", headers={"X-Forwarded-For": "203.0.113.7"}, source="127.0.0.9")
    assert [value for name, value in body["headers"] if name.lower() == "x-forwarded-for"] == [
        "203.0.113.7",
        "127.0.0.9",
    ]


def test_pages_of_ray_are_hidden_but_its_health_check_is_not(running: Running) -> None:
    for path in ("/-/routes", "/%2D/routes", "/-/anything"):
        check_error(running.request("GET", path), 404, "not_found")
    assert running.request("GET", "/-/healthz")[::2] == (200, "success")


def test_a_body_that_is_announced_too_large_is_refused_at_once(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: 300001\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    status, _, body = running.request("POST", "/v1/detect", bytes(300_000))
    assert (status, body["received"]) == (200, 300_000)


def test_large_headers_are_refused(running: Running) -> None:
    check_error(running.request("GET", "/x", headers={"X-Large": 5000 * "a"}), 431, "too_large")


def test_250_mb_of_headers_take_no_memory(running: Running) -> None:
    before, sent = resident(running.pid), 0
    line = b"X-Large: " + 60_000 * b"a" + b"\r\n"
    with running.connect() as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n")
        while sent < BURST:
            connection.sendall(line)
            sent += len(line)
    assert sent < 20 * 2**20  # what the kernel buffers
    assert resident(running.pid) - before < 20 * 2**20


def resident(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "sent", [b"GET /x HTTP/1.1\r\nHost: a\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"]
)
def test_a_request_that_does_not_arrive_is_ended(running: Running, sent: bytes) -> None:
    with running.connect() as connection:
        connection.sendall(sent)
        started = time.monotonic()
        answer = connection.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.5 < time.monotonic() - started < 10
        assert b'"too_slow"' in answer or b"408 Request Time-out" in answer


def test_an_address_has_a_bounded_number_of_connections(running: Running) -> None:
    held = [running.connect(source="127.0.0.3") for _ in range(LIMITS.connections_per_address)]
    try:
        with pytest.raises(OSError):  # noqa: PT011 -- reset, or closed without an answer
            running.request("GET", "/x", source="127.0.0.3")
        assert running.request("GET", "/x", source="127.0.0.4")[0] == 200
        trusted = [running.connect(source="127.0.0.9") for _ in range(LIMITS.connections_per_address + 5)]
        assert running.request("GET", "/x", source="127.0.0.9")[0] == 200
        held += trusted
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body"), [("GET", "/v1/model", b""), ("POST", "/v1/detect", 100_000 * b"a")]
)
def test_a_request_that_changes_nothing_is_sent_again_if_its_replica_dies(
    running: Running, method: str, path: str, body: bytes
) -> None:
    assert running.request(method, path, body, {"X-Die-Once": "1"})[0] == 200
    assert running.paths.count(path) >= 2


def test_feedback_is_never_sent_twice(running: Running) -> None:
    """The client is told, or disconnected if the replica's connection had been used before."""
    with contextlib.suppress(http.client.RemoteDisconnected):
        answer = running.request("POST", "/v1/feedback", b"abc", {"X-Die-Once": "1"})
        check_error(answer, 502, "unavailable")
        assert answer[1]["retry-after"] == str(front.RETRY_AFTER_S)
    assert running.paths.count("/v1/feedback") == 1


def test_it_listens_on_the_address_that_was_asked_for_and_its_side_ports_on_this_machine(running: Running) -> None:
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    addresses = sorted(line.split()[3] for line in listening if f"pid={running.pid}," in line)
    assert addresses[0] == f"0.0.0.0:{running.port}"
    assert [address.split(":")[0] for address in addresses[1:]] == ["127.0.0.1", "127.0.0.1"]
    assert (running.folder / "admin.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("server_ports", [None, []])
def test_without_a_replica_the_answer_is_503_and_haproxy_ends_with_its_parent(
    tmp_path: Path, server_ports: list[int] | None
) -> None:
    alone = start(tmp_path, server_ports)
    try:
        answer = alone.request("GET", "/x")
        check_error(answer, 503, "unavailable")
        assert answer[1]["retry-after"] == str(front.RETRY_AFTER_S)
    finally:
        stop(alone)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{alone.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{alone.pid}").exists()


def test_a_configuration_that_ray_writes_otherwise_is_named(tmp_path: Path) -> None:
    configuration = write_configuration(tmp_path, free_port(), None)
    text = configuration.read_text()
    assert front.rewrite(text, LIMITS) != text
    with pytest.raises(front.ConfigurationChanged, match="the mode of the admin socket in another form"):
        front.rewrite(text.replace("mode 666", "mode 660"), LIMITS)


@pytest.mark.parametrize("name", [*front.VARIABLES, *front.PORTS])
def test_ray_still_reads_each_variable(name: str) -> None:
    constants = importlib.import_module("ray.serve._private.constants")
    assert constants.__file__
    assert re.search(rf"[\"']{name}[\"']", Path(constants.__file__).read_text()), (
        f"Ray {ray.__version__} no longer reads {name}: see VARIABLES in serve_app/front.py"
    )


def test_it_listens_on_an_address_of_ipv6_with_the_same_limits(running: Running, tmp_path: Path) -> None:
    server = int(re.findall(r"server \S+ 127\.0\.0\.1:(\d+)", (running.folder / "haproxy.cfg").read_text())[0])
    other = start(tmp_path, [server], host="::1")
    try:
        assert other.request("GET", "/ipv6")[0] == 200
        with contextlib.ExitStack() as stack:
            for _ in range(LIMITS.connections_per_address):
                stack.enter_context(other.connect())
            with pytest.raises(OSError):  # noqa: PT011 -- reset, or closed without an answer
                other.request("GET", "/ipv6")
    finally:
        stop(other)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_an_operator_gets_the_launcher_and_the_variables(short_path: Path) -> None:
    command = [sys.executable, str(ROOT / "serve_app" / "front.py"), str(short_path), '{"header_s": 5}']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (short_path / "haproxy").stat().st_mode & 0o111
    values = subprocess.run(
        ["bash", "-c", f"{done.stdout}\n{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(values.stdout)
    expected = front.environment(Front(header_s=5), str(short_path))
    assert {name: found[name] for name in expected} == expected
    long = subprocess.run([*command[:2], "/tmp/" + 30 * "a"], capture_output=True, text=True, check=False)
    assert long.stderr.startswith(f"error: /tmp/{30 * 'a'} is longer than 29 bytes"), long.stderr
    wrong = subprocess.run([*command[:-1], '{"header": 5}'], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "header" in wrong.stderr


def test_a_node_that_was_started_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Front(header_s=5)
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    assert front.of_this_process() is None
    assert "Ray's proxy" in front.difference(None, wanted)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv(front.VARIABLE, json.dumps(dataclasses.asdict(Front())))
    found = front.of_this_process()
    assert found == Front()
    assert front.difference(found, wanted).endswith("header_s is 10, the settings have 5")
