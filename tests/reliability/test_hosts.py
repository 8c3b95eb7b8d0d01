"""A cluster of hosts made of namespaces; run on request, because it takes minutes and needs root and sshd.

``HOSTS=short make test`` plays the short scenario, three minutes on two cores; ``HOSTS=1 make test`` all of them,
also the whole one, which ``make hosts`` plays alone, in eight minutes.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 1000
CANNOT_MAKE_HOSTS = 77
REQUESTED = os.environ.get("HOSTS", "")
pytestmark = [
    pytest.mark.skipif(not REQUESTED, reason="takes minutes: set HOSTS=short or HOSTS=1, or run make hosts"),
    pytest.mark.timeout(LIMIT_S + 60),
]


def play(*words: str) -> dict[str, Any]:
    """The result that ``run.sh`` prints. Fails if the scenario fails or leaves its folder on the disk."""
    run = Path(__file__).parents[2] / "reliability" / "cluster" / "run.sh"
    done = subprocess.run(["bash", str(run), *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode == CANNOT_MAKE_HOSTS:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-8000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not Path(result["folder"]).exists()
    return result


def test_a_cluster_over_ssh_trains_across_hosts_and_serves() -> None:
    result = play("short")
    assert len(set(result["workers"])) == 2
    assert result["verdict"] in {"real", "fake", "uncertain"}


@pytest.mark.skipif(REQUESTED == "short", reason="only the short scenario was requested")
def test_a_run_survives_the_loss_of_a_host() -> None:
    result = play()
    assert len(set(result["workers"])) == 2
    assert result["resumed_at"] <= result["went_on_at"]
    assert result["verdict"] in {"real", "fake", "uncertain"}


@pytest.mark.skipif(REQUESTED == "short", reason="only the short scenario was requested")
def test_a_host_that_is_taken_back_is_no_failure() -> None:
    result = play("spot")
    assert result["resumed_at"] > result["checkpoint_at"]


@pytest.mark.skipif(REQUESTED == "short", reason="only the short scenario was requested")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed (Debian: redis-server)")
def test_a_service_outlives_its_head() -> None:
    assert play("head")["requests"] > 0
