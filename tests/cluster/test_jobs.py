"""`ray job submit` to a `ray start --head` on this machine that needs a token."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
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
from tests.support.cluster import Head, head_node
from tests.support.progress import run

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UV = shutil.which("uv") or (str(ROOT / ".uv/bin/uv") if (ROOT / ".uv/bin/uv").exists() else None)
LIMIT_S = 240
UPLOAD_BYTES = 14 * 2**20  # 9 MiB of it are the starter model
RAY_LIMIT_BYTES = 100 * 2**20
TINY = (
    "timm:test_resnet", "--init", "none", "--image-size", "32", "--epochs", "1", "--batch-size", "12", "--cpus", "1",
)  # fmt: skip


@dataclass(frozen=True)
class Client:
    """Submits jobs to a head node."""

    head: Head

    def submit(
        self, *command: str, flags: tuple[str, ...] = ("--working-dir", "."), token: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """``ray job submit FLAGS -- COMMAND`` from the project's folder, with the cluster's token or another one."""
        submit = [str(BIN / "ray"), "job", "submit", *flags, "--", *command]
        env = self.head.env | self.variable | ({"RAY_AUTH_TOKEN": token} if token else {})
        return run(submit, cwd=ROOT, env=env)

    @property
    def variable(self) -> dict[str, str]:
        """The one variable by which docs/operate.md lets every command find a cluster on other ports."""
        return {"RAY_API_SERVER_ADDRESS": self.head.dashboard}


def results_of(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """The results of the jobs that a successful submission ran; its log has other lines before and after each."""
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with head_node(dashboard=True) as head:
        yield Client(head)


@pytest.fixture(scope="module")
def results(client: Client, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of every job, run one after another by one submission; the first by ``uv run`` if there is uv.

    ``uv run`` starts the workers of a job with the driver's interpreter: here the installed one, offline.
    """
    images, folder = manifest.load(str(tiny_dataset)).root, tmp_path_factory.mktemp("jobs")
    data, runs, models = (str(folder / name) for name in ("data", "runs", "models"))
    jobs = (
        ("prepare", images, "--out", data),
        ("train", *TINY, "--data", data, "--storage", runs, "--name", "one"),
        ("tune", *TINY, "--data", data, "--storage", runs, "--learning-rates", "0.003", "--cache", "none"),
        ("evaluate", f"{runs}/one", "--data", data, "--workers", "1"),
        ("promote", f"{runs}/one", "--to", models),
    )
    script = " && ".join(shlex.join(["python", "-m", f"jobs.{verb}", *flags]) for verb, *flags in jobs)
    env = {"UV_PROJECT_ENVIRONMENT": str(Path(sys.prefix)), "UV_OFFLINE": "1"}
    with_uv = f"{shlex.quote(UV)} run --frozen --no-sync " if UV else ""
    flags = ("--working-dir", ".", "--runtime-env-json", json.dumps({"env_vars": env}))
    return results_of(client.submit("sh", "-c", with_uv + script, flags=flags))


def test_every_job_runs_under_ray_job_submit(results: list[dict[str, Any]]) -> None:
    prepared, trained, tuned, evaluated, promoted = results
    assert prepared["images"] == 80
    assert trained["epochs"] == 1
    assert tuned["failed"] == 0
    assert evaluated["split"] == "test"
    assert Path(promoted["live"]).is_dir()


@pytest.mark.skipif(UV is None, reason="uv is neither on the PATH nor in .uv/")
def test_uv_run_uses_the_installed_environment(results: list[dict[str, Any]]) -> None:
    assert results[0]["images"] == 80


def test_jobs_that_fail_say_why_and_exit_with_an_error(client: Client, tiny_dataset: Path, tmp_path: Path) -> None:
    """One submission of two: without a data set, and with too few resources; the second decides the exit code."""
    evaluate = ("python", "-m", "jobs.evaluate", "none", "--data", str(tmp_path / "none"))
    where = ("--data", str(tiny_dataset), "--storage", str(tmp_path))
    train = ("python", "-m", "jobs.train", *TINY, *where, "--gpu")
    done = client.submit("sh", "-c", f"{shlex.join(evaluate)}; echo exit code $?; {shlex.join(train)}")
    assert done.returncode == 1
    first, _, second = done.stdout.partition("exit code 1")
    assert "is not a prepared data set" in first
    assert "needs 1 GPU, and this Ray cluster has 0" in second
    assert "Traceback" not in first + second.partition("error: ")[0]
    assert "failed" in done.stdout + done.stderr


def test_the_other_commands_of_the_page_find_the_cluster_too(client: Client) -> None:
    """Ray asks for the status of jobs, and Serve for that of applications, on ports of their own."""
    lines = 'ray job list && serve status --address "$RAY_API_SERVER_ADDRESS"'
    env = client.head.env | client.variable
    done = subprocess.run(["bash", "-c", lines], env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "applications: {}" in done.stdout


def test_without_the_token_no_job_is_run(client: Client) -> None:
    done = client.submit("python", "-c", "print(1)", flags=(), token="0" * 32)
    assert done.returncode != 0
    assert re.search("401|403|nauthenticated|nauthorized|token", done.stdout + done.stderr)


def test_a_working_directory_that_is_too_large_is_refused(client: Client, tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(RAY_LIMIT_BYTES + 1)  # sparse: it takes no space on the disk, but does in the package
    done = client.submit("python", "-c", "print(1)", flags=("--working-dir", str(tmp_path)))
    assert done.returncode != 0
    assert f"413: Maximum request body size {RAY_LIMIT_BYTES} exceeded" in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_scrapes_the_nodes_and_knows_the_alerts(client: Client) -> None:
    port = free_port()
    command = ["bash", str(ROOT / "docs/monitoring/start.sh"), str(client.head.folder / "ray/session_latest/metrics")]
    ports = {"PROMETHEUS_PORT": str(port), "GRAFANA_PORT": str(free_port())}
    env = {**os.environ, **ports, "ALERTMANAGER": "127.0.0.1:9"}
    script = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        question = f"http://127.0.0.1:{port}/api/v1/query?query=ray_node_cpu_count"
        deadline, scraped = time.monotonic() + LIMIT_S, []
        while not scraped:  # a node's agent has its first figures some seconds after it can be scraped
            assert script.poll() is None, script.communicate()[0]
            assert time.monotonic() < deadline, "Prometheus has no figure of the node"
            time.sleep(0.5)
            with suppress(OSError), urllib.request.urlopen(question) as answer:
                scraped = json.load(answer)["data"]["result"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules") as answer:
            (group,) = json.load(answer)["data"]["groups"]
        assert "DetectorAnswersNobody" in [rule["name"] for rule in group["rules"]]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alertmanagers") as answer:
            (alertmanager,) = json.load(answer)["data"]["activeAlertmanagers"]
        assert alertmanager["url"].startswith("http://127.0.0.1:9/")
    finally:
        script.terminate()
        script.communicate(timeout=30)
    assert script.returncode == 0


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
