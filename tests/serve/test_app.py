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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    versions.promote(save_model(folder / "model"), folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(models, tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("log") / "stderr") as service:
        yield service


def test_it_says_where_it_listens(service: Service) -> None:
    for part in (f"http://127.0.0.1:{service.port}/\n", f"http://127.0.0.1:{service.port}/docs\n", "token: "):
        assert part in service.output
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


def test_the_layout_together_runs_ingress_and_model_in_one_process(models: Path, tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("layout: together")
    (tmp_path / "home").mkdir()
    with running(models, tmp_path / "home", tmp_path / "log", "--config", str(tmp_path / "serve.yaml")) as together:
        check_score(together)
        assert together.request("GET", "/readyz")[0] == 200
        titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in marked(together.mark)]
    # While a replica runs a method, such as a health check, a dot and the method follow in the title.
    replicas = [re.split(r"[.\0]", title)[0] for title in titles if "ServeReplica" in title]
    assert replicas == ["ray::ServeReplica:detector:Ingress"]


def test_gauges_that_rarely_change_do_not_expire(service: Service) -> None:
    """Ray drops a gauge that is not set again within GAUGE_EXPIRES_S."""

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
    time.sleep(GAUGE_EXPIRES_S + 5)
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
