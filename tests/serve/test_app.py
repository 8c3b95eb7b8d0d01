"""The application on a real Ray Serve, started in processes of its own."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detector_core.images.decode import decode
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from jobs.common.loopback import free_port
from tests.support.models import save_model
from tests.support.serving import STOP_S, Service, marked, running

GAUGE_EXPIRES_S = 20
PER_MINUTE = 30
"""More requests than the other tests send to the same service."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    versions.promote(save_model(folder / "model"), folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings, log = tmp_path_factory.mktemp("settings") / "serve.yaml", tmp_path_factory.mktemp("log") / "stderr"
    settings.write_text(f"http: {{requests_per_minute: {PER_MINUTE}}}")
    with running(models, tmp_path_factory.mktemp("home"), log, "--config", str(settings)) as service:
        yield service


def test_it_says_where_it_listens(service: Service) -> None:
    for part in (f"http://127.0.0.1:{service.port}/\n", f"http://127.0.0.1:{service.port}/docs\n"):
        assert part in service.output
    assert "dashboard" not in service.output
    assert service.request("GET", "/readyz")[0] == 200
    assert "<title>" in service.request("GET", "/")[1]


def test_the_model_that_answers_is_named_and_each_answer_has_one_request_id(service: Service) -> None:
    answer = httpx.get(f"http://127.0.0.1:{service.port}/v1/model", headers={"X-Request-ID": "mine"}, timeout=60)
    assert answer.json()["version"] == versions.live(service.models).name
    assert answer.headers.get_list("X-Request-ID") == ["mine"]
    odd = httpx.get(f"http://127.0.0.1:{service.port}/nowhere", headers={"X-Request-ID": "a:b"}, timeout=60)
    assert odd.headers.get_list("X-Request-ID") == [odd.json()["error"]["request_id"]] != ["a:b"]


def test_what_surrounds_the_application_keeps_to_its_rules(service: Service) -> None:
    """HEAD for every GET, no request without a Host, and no list of routes for everybody."""
    base = f"http://127.0.0.1:{service.port}"
    for path in ("/", "/readyz", "/v1/model", "/static/page.js"):
        head = httpx.head(f"{base}{path}", timeout=60)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 0
    assert httpx.get(f"{base}/-/healthz", timeout=60).status_code == 200
    assert httpx.get(f"{base}/-/routes", timeout=60).status_code == 404
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(b"GET /v1/model HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"400"


def check_score(service: Service) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    (expected,) = Predictor(versions.live(service.models)).predict([decode(buffer.getvalue())])
    status, body = service.request("POST", "/v1/detect", buffer.getvalue(), "image/jpeg")
    assert status == 200
    (result,) = json.loads(body)["results"]
    assert result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-3)
    assert result["verdict"] == expected.verdict
    assert result["model"]["version"] == versions.live(service.models).name
    status, body = service.request("POST", "/v1/detect", b"text", "image/jpeg")
    assert (status, json.loads(body)["error"]["code"]) == (400, "not_an_image")


def test_an_image_gets_the_score_of_the_predictor(service: Service) -> None:
    check_score(service)


def replicas(service: Service) -> list[str]:
    """The titles of its replicas. While one runs a method, a dot and the method follow in the title."""
    titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in marked(service.mark)]
    return sorted(re.split(r"[.\0]", title)[0] for title in titles if "ServeReplica" in title)


def test_on_a_cpu_ingress_and_model_are_one_process(service: Service) -> None:
    assert replicas(service) == ["ray::ServeReplica:detector:Ingress"]


def listening(service: Service) -> dict[str, set[str]]:
    """The addresses that its processes listen on, by the first word of their title."""
    addresses: dict[str, set[str]] = {}
    ours = set(marked(service.mark))
    for line in subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines():
        for name, pid in re.findall(r'\("([^"]+)",pid=(\d+)', line):
            if int(pid) in ours:
                addresses.setdefault(name, set()).add(line.split()[3])
    return addresses


def test_only_rays_own_ports_are_open_to_the_network(service: Service) -> None:
    """Processes of Ray talk to each other by gRPC, with the token, on every address; the only page is Ray's metrics."""
    found = listening(service)
    assert f"127.0.0.1:{service.port}" in found["haproxy"]
    assert {address.split(":")[0] for address in found["haproxy"]} == {"127.0.0.1"}
    pages = {
        f"{name} on {address}": page(int(address.rpartition(":")[2]))
        for name, addresses in found.items()
        for address in addresses
        if not address.startswith("127.0.0.1:")
    }
    assert pages
    assert {name: text for name, text in pages.items() if text and not text.startswith("# HELP ")} == {}


def page(port: int) -> str:
    """What a port answers to a plain request without the token; empty if it does not speak HTTP or refuses."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
    except httpx.HTTPError:
        return ""
    return answer.text[:100] if answer.status_code < 400 else ""


def test_each_client_has_a_rate_of_its_own_and_cannot_forge_another(service: Service) -> None:
    """Through HAProxy, which names the client."""
    statuses = {
        source: [
            status_from(service, source, {"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(PER_MINUTE + 2)
        ]
        for source in ("127.0.0.2", "127.0.0.3")
    }
    assert statuses == {source: [200] * PER_MINUTE + [429, 429] for source in statuses}


def status_from(service: Service, source: str, headers: dict[str, str]) -> int:
    """The status of an image that is sent from an address of this machine."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "gray").save(buffer, "JPEG")
    service.last_request = time.monotonic()
    transport = httpx.HTTPTransport(local_address=source)
    with httpx.Client(transport=transport, timeout=60) as client:
        url = f"http://127.0.0.1:{service.port}/v1/detect"
        return client.post(
            url, content=buffer.getvalue(), headers={**headers, "Content-Type": "image/jpeg"}
        ).status_code


def test_rays_own_proxy_and_the_layout_for_gpus_still_serve(models: Path, tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("{layout: apart, front: {proxy: ray}}")
    (tmp_path / "home").mkdir()
    with running(models, tmp_path / "home", tmp_path / "log", "--config", str(tmp_path / "serve.yaml")) as plain:
        check_score(plain)
        assert replicas(plain) == ["ray::ServeReplica:detector:Detector", "ray::ServeReplica:detector:Ingress"]
        assert "haproxy" not in listening(plain)


def test_gauges_that_rarely_change_do_not_expire(service: Service) -> None:
    """Ray drops a gauge that is not set again within GAUGE_EXPIRES_S: they are there that long after a request."""

    def exported_gauges() -> set[str]:
        lines = httpx.get(f"http://{host}:{port}/metrics", timeout=60).text.splitlines()
        return {
            line.split("{")[0] for line in lines if line.startswith(("ray_detector_images", "ray_detector_model_b"))
        }

    (raylet,) = service.pids(b"raylet/raylet\0")
    flags = dict(re.findall(r"--(\w+)=([^\0]*)", Path(f"/proc/{raylet}/cmdline").read_text()))
    (file,) = Path(flags["session_dir"]).glob("metrics_export_port_*")
    host, port = flags["node_ip_address"], file.read_text()
    deadline = time.monotonic() + 60
    while len(exported_gauges()) < 2 and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(max(0.0, service.last_request + GAUGE_EXPIRES_S + 5 - time.monotonic()))
    assert exported_gauges() == {"ray_detector_images_waiting", "ray_detector_model_behind"}


def test_it_stops_cleanly_and_leaves_nothing(service: Service) -> None:
    """The last one: it stops the service that the others share."""
    assert len(marked(service.mark)) > 3
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(STOP_S) == 0
    assert service.log.read_text().splitlines()[-2:] == ["stopping ...", "stopped"]
    deadline = time.monotonic() + 10
    while marked(service.mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked(service.mark) == []
    assert list(service.home.rglob("*")) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", service.port))


def test_a_model_that_no_replica_can_load_is_named(tmp_path: Path) -> None:
    """On a private Ray cluster, even if `ray start` has left a note of a cluster that is long gone."""
    version = versions.promote(save_model(tmp_path / "model"), tmp_path / "models")
    weights = tmp_path / "models" / version / artifacts.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has at most 107 bytes
        noted = Path(short, "ray", "ray_current_cluster")
        noted.parent.mkdir()
        noted.write_text("127.0.0.1:1")
        found = subprocess.run(
            [sys.executable, "-m", "jobs.serve", "--models", tmp_path / "models", "--port", str(free_port())],
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | {"RAY_TMPDIR": short},
        )
    assert found.returncode == 1
    assert "BrokenArtifact" in found.stderr.splitlines()[-1]
    assert "--rollback" in found.stderr.splitlines()[-1]


def test_what_cannot_work_is_said_before_ray_starts(models: Path, tmp_path: Path, run_job: Any) -> None:
    (tmp_path / "live").write_text("gone\n")
    code, result, message = run_job("serve", "--models", tmp_path)
    assert (code, result, message.count("\n")) == (1, {}, 1)
    assert "promote a model again" in message
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, result, message = run_job("serve", "--models", models, "--port", port)
    assert (code, result, message.count("\n")) == (1, {}, 1)
    assert f"port {port} is in use" in message
