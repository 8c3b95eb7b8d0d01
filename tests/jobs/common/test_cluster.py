"""jobs.common.cluster: version mismatches, resources and the autoscaler, a lost head node. Starts no Ray cluster."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from detector_core.errors import BadConfig, ClusterLost, InsufficientResources
from jobs.common import cli, cluster, ray_internals
from jobs.common.loopback import free_port

MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.9\n"
    "This process on 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.fixture
def set_cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the resources of a cluster, now and with every node that its autoscaler may add."""

    def set_resources(now: dict[str, float], limits: dict[str, float]) -> None:
        monkeypatch.setattr(ray, "cluster_resources", lambda: now)
        monkeypatch.setattr(ray_internals, "autoscaler_limits", lambda: limits)

    return set_resources


def test_a_version_mismatch_is_one_line_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError(MISMATCH)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with (
        pytest.raises(BadConfig, match=r"Python: 3.11.9 .*Python: 3.11.7: use one locked environment") as caught,
        cluster.connect(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_request_for_a_gpu_that_no_node_has_is_refused(set_cluster: Any) -> None:
    set_cluster({"CPU": 2.0}, {})
    with pytest.raises(InsufficientResources, match="training needs 1 GPU, and this Ray cluster has 0: ask for less"):
        cluster.check_resources(cpus=1, gpus=1, purpose="training")


def test_a_request_for_more_than_the_autoscaler_may_add_is_refused(set_cluster: Any) -> None:
    set_cluster({"CPU": 4.0}, {"CPU": 64, "GPU": 8})
    with pytest.raises(
        InsufficientResources, match="needs 9 GPU, and this Ray cluster has 0, and 8 with every node it may add"
    ):
        cluster.check_resources(cpus=9, gpus=9, purpose="training")


def test_a_job_waits_for_nodes_that_the_autoscaler_may_add(set_cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    set_cluster({}, {"CPU": 64, "GPU": 8})
    cluster.check_resources(cpus=4, gpus=4, purpose="training")
    assert "training needs 4 GPU, and this Ray cluster has 0: waiting for its autoscaler" in capfd.readouterr().err


def test_enough_resources_need_no_message(set_cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    set_cluster({"CPU": 4.0}, {"CPU": 2})
    cluster.check_resources(cpus=4, purpose="training")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ray.exceptions.RayActorError(), "Ray failed under the job ("),
        (ray.exceptions.RaySystemError("the raylet is gone\nand so on"), "Ray failed under the job ("),
        (ray.exceptions.LocalRayletDiedError(), "Ray failed under the job ("),
        (ray.exceptions.OutOfMemoryError("killed"), "Ray ended this job because memory ran out"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_of_ray_under_a_job_is_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    monkeypatch.setattr(cluster, "start", lambda _: nullcontext(""))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    with pytest.raises(ClusterLost) as lost, cluster.connect():
        raise failure
    assert str(lost.value).startswith(message)
    assert cli.RESUME_HINT in str(lost.value)
    assert "\n" not in str(lost.value)


def test_a_lost_head_node_ends_the_job_with_one_line() -> None:
    code = (
        "import threading; from jobs.common import cluster; cluster.CHECK_EVERY_S, cluster.HEAD_LOST_S = 0.05, 0.2\n"
        f"cluster._watch_head('127.0.0.1:{free_port()}', threading.Event())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the Ray head node at 127.0.0.1:")
    assert "--resume" in done.stderr
    assert len(done.stderr.splitlines()) == 1
