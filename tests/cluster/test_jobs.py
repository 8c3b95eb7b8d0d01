"""`ray job submit` to a `ray start --head` on this machine that needs a token."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import create_package

from detector_core.data import manifest
from jobs.common.loopback import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UV = shutil.which("uv") or (str(ROOT / ".uv/bin/uv") if (ROOT / ".uv/bin/uv").exists() else None)
LIMIT_S = 240
UPLOAD_BYTES = 2 * 2**20
RAY_TAKES_BYTES = 100 * 2**20
TINY = (
    "timm:test_resnet",
    "--init",
    "none",
    "--image-size",
    "32",
    "--epochs",
    "1",
    "--batch-size",
    "12",
    "--cpus",
    "1",
)
PORTS = (
    "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "metrics-export-port", "runtime-env-agent-port", "object-manager-port", "node-manager-port",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A running head node: where jobs are submitted, and the environment that opens it."""

    address: str
    env: dict[str, str]

    def submit(
        self, *command: str, flags: tuple[str, ...] = ("--working-dir", ".")
    ) -> "subprocess.CompletedProcess[str]":
        """``ray job submit FLAGS -- COMMAND`` from the project's folder."""
        whole = [str(BIN / "ray"), "job", "submit", "--address", self.address, *flags, "--", *command]
        return subprocess.run(
            whole, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    def job(self, verb: str, *flags: str, python: str = "python") -> dict[str, Any]:
        """A job that must succeed; the JSON line in its log."""
        done = self.submit(*python.split(), "-m", f"jobs.{verb}", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        return result_of(done.stdout)


def result_of(log: str) -> dict[str, Any]:
    """The last line of a job's own output: before it come its messages, after it Ray's words on the job."""
    found = [line for line in log.splitlines() if line.startswith("{")]
    assert found, log
    result: dict[str, Any] = json.loads(found[-1])
    return result


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node with ports, token and folder of its own; stopped by its process id."""
    above = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has at most 107 bytes
    temporary = f"{above}/ray"
    ports = {name: free_port() for name in PORTS}
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "PATH": f"{BIN}:{env['PATH']}",
        "HOME": above,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TMPDIR": above,
    }
    gcs = free_port()
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "2", "--object-store-memory", "300000000"]
    command += ["--port", str(gcs), "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
    command += ["--include-dashboard", "true", "--temp-dir", temporary, "--disable-usage-stats"]
    command += [part for name, port in ports.items() for part in (f"--{name}", str(port))]
    with tempfile.TemporaryFile("w+") as log:
        ray = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            found = Head(f"http://127.0.0.1:{ports['dashboard-port']}", env)
            listing = [str(BIN / "ray"), "job", "list", "--address", found.address]
            deadline = time.monotonic() + LIMIT_S
            address = Path(temporary, "ray_current_cluster")  # the last thing that `ray start` writes
            while not address.exists() or subprocess.run(listing, env=env, capture_output=True, check=False).returncode:
                log.seek(0)
                assert ray.poll() is None, log.read()
                assert time.monotonic() < deadline, log.read()
                time.sleep(0.2)
            yield found
        finally:
            ray.send_signal(signal.SIGTERM)
            try:
                ray.wait(timeout=60)
            finally:
                shutil.rmtree(above, ignore_errors=True)


def test_every_job_runs_under_ray_job_submit(head: Head, tiny_dataset: Path, tmp_path: Path) -> None:
    images = manifest.load(str(tiny_dataset)).root
    data, runs, models = (str(tmp_path / name) for name in ("data", "runs", "models"))
    assert head.job("prepare", images, "--out", data)["images"] == 80
    assert head.job("train", *TINY, "--data", data, "--storage", runs, "--name", "one")["epochs"] == 1
    rates = ("--learning-rates", "0.003,0.001", "--name", "rates", "--cache", "none")
    assert head.job("tune", *TINY, "--data", data, "--storage", runs, *rates)["failed"] == 0
    assert head.job("evaluate", f"{runs}/one", "--data", data, "--workers", "1")["split"] == "test"
    assert head.job("promote", f"{runs}/one", "--to", models)["live"].startswith(models)


def test_a_failed_job_says_why_and_exits_with_an_error(head: Head, tmp_path: Path) -> None:
    done = head.submit("python", "-m", "jobs.evaluate", "none", "--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "is not a prepared data set" in done.stdout
    assert "Traceback" not in done.stdout.partition("error: ")[0]
    assert "failed" in done.stdout + done.stderr


def test_too_few_resources_are_reported_in_seconds(head: Head, tiny_dataset: Path, tmp_path: Path) -> None:
    flags = ("--data", str(tiny_dataset), "--storage", str(tmp_path), "--gpu")
    done = head.submit("python", "-m", "jobs.train", *TINY, *flags)
    assert done.returncode == 1
    assert "needs 1 GPU, and this Ray has 0" in done.stdout


def test_a_job_without_an_address_starts_a_private_ray(head: Head, tiny_dataset: Path, tmp_path: Path) -> None:
    images = manifest.load(str(tiny_dataset)).root
    command = [sys.executable, "-m", "jobs.prepare", images, "--out", str(tmp_path / "data")]
    done = subprocess.run(command, env=head.env, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert re.search(r"to use the Ray that already runs on this machine, set RAY_ADDRESS=[\d.]+:\d+", done.stderr)
    assert json.loads(done.stdout.splitlines()[-1])["images"] == 80


def test_without_the_token_no_job_is_run(head: Head) -> None:
    stranger = Head(head.address, {**head.env, "RAY_AUTH_TOKEN": "0" * 32})
    done = stranger.submit("python", "-c", "print(1)", flags=())
    assert done.returncode != 0
    assert re.search("401|403|nauthenticated|nauthorized|token", done.stdout + done.stderr)


def test_a_working_directory_that_is_too_large_is_refused(head: Head, tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(RAY_TAKES_BYTES + 1)  # a hole on the disk, but not in the package
    done = head.submit("python", "-c", "print(1)", flags=("--working-dir", str(tmp_path)))
    assert done.returncode != 0
    assert f"413: Maximum request body size {RAY_TAKES_BYTES} exceeded" in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_scrapes_the_nodes(head: Head) -> None:
    port = free_port()
    command = ["bash", str(ROOT / "docs/monitoring/start.sh"), f"{head.env['HOME']}/session_latest/metrics"]
    env = {**os.environ, "PROMETHEUS_PORT": str(port), "GRAFANA_PORT": str(free_port())}
    script = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline, health = time.monotonic() + LIMIT_S, "none"
        while health != "up":
            assert script.poll() is None, script.communicate()[0]
            assert time.monotonic() < deadline, health
            time.sleep(0.5)
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets") as answer:
                targets = json.load(answer)["data"]["activeTargets"]
                health = targets[0]["health"] if targets else "none"
        question = f"http://127.0.0.1:{port}/api/v1/query?query=ray_node_cpu_count"
        with urllib.request.urlopen(question) as answer:
            assert json.load(answer)["data"]["result"]
    finally:
        script.terminate()
        script.communicate(timeout=30)
    assert script.returncode == 0


@pytest.mark.skipif(UV is None, reason="uv is neither on the PATH nor in .uv/")
def test_uv_run_uses_the_installed_environment(head: Head, tiny_dataset: Path, tmp_path: Path) -> None:
    """``uv run`` gives a job's workers the driver's interpreter: here the installed one, without a network."""
    env = {"UV_PROJECT_ENVIRONMENT": str(Path(sys.prefix)), "UV_OFFLINE": "1"}
    flags = ("--working-dir", ".", "--runtime-env-json", json.dumps({"env_vars": env}))
    train = ("-m", "jobs.train", *TINY, "--data", str(tiny_dataset), "--storage", str(tmp_path), "--name", "uv")
    done = head.submit(str(UV), "run", "--frozen", "--no-sync", "python", *train, flags=flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result_of(done.stdout)["epochs"] == 1


def test_the_upload_is_small_and_contains_only_code(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=[".git", ".venv", "venv", "__pycache__"])
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(package)], capture_output=True, text=True, check=True
    ).stdout
    for needed in (
        "jobs/train.py",
        "detector_core/evaluation/paper.json",
        "serve_app/config.yaml",
        "uv.lock",
        "pyproject.toml",
    ):
        assert needed in names
    for useless in ("tests/", "docs/", ".venv", ".demo", "__pycache__", ".git/"):
        assert not re.search(rf"^{re.escape(useless)}", names, flags=re.MULTILINE)
    print(f"upload of ray job submit --working-dir . : {package.stat().st_size / 1024:.0f} KiB")
    assert package.stat().st_size < UPLOAD_BYTES
