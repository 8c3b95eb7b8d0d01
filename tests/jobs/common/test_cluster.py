"""jobs.common.cluster: version mismatches, resources and the autoscaler, a lost head node. Starts no Ray cluster."""

import socket
import subprocess
import sys
import threading
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


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("garbage", BadConfig, "RAY_ADDRESS=garbage is not HOST:PORT, such as 10.0.0.1:6379"),
        ("::1:6379", BadConfig, "RAY_ADDRESS=::1:6379 is not HOST:PORT"),
        ("nobody.invalid:6379", InsufficientResources, "no Ray cluster answers at RAY_ADDRESS=nobody.invalid:6379 ("),
        ("http://10.0.0.1:8265", BadConfig, "RAY_ADDRESS=http://10.0.0.1:8265 is not HOST:PORT, such as 10.0.0.1:6379"),
        ("http://head", BadConfig, "RAY_ADDRESS=http://head is not HOST:PORT"),
        ("10.0.0.1:6379/", BadConfig, "RAY_ADDRESS=10.0.0.1:6379/ is not HOST:PORT"),
        ("10.0.0.1:99999", BadConfig, "RAY_ADDRESS=10.0.0.1:99999 is not HOST:PORT"),
        ("ray://head", BadConfig, "RAY_ADDRESS=ray://head is not HOST:PORT"),
        ("ray://127.0.0.1:PORT", InsufficientResources, "(Connection refused): correct it, start Ray there, or unset"),
        ("127.0.0.1:PORT", InsufficientResources, "(Connection refused): correct it, start Ray there, or unset"),
    ],
)
def test_an_address_at_which_nobody_answers_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would try for minutes"))
    monkeypatch.setenv("RAY_ADDRESS", address.replace("PORT", str(free_port())))
    with pytest.raises(error) as refused, cluster.start(cluster.PrivateRay()):
        pass
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_tried_in_its_family(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    with socket.create_server((host, 0), family=family) as head:
        port = head.getsockname()[1]
        cluster._check_answers(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        ended = threading.Event()
        threading.Timer(0.1, ended.set).start()
        cluster._watch_head(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", ended)


@pytest.mark.parametrize(
    ("shared", "attempts", "message"),
    [
        (False, 3, "Ray did not start in 3 attempts of 30 s: this machine is too busy (The current node timed out"),
        (True, 1, "the Ray cluster at RAY_ADDRESS=auto accepts connections, but does not answer: restart it"),
    ],
)
def test_a_ray_that_is_too_slow_is_one_line(
    monkeypatch: pytest.MonkeyPatch, shared: bool, attempts: int, message: str
) -> None:
    calls = []

    def init(**options: Any) -> None:
        calls.append(options)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_internals, "running_ray_address", lambda: None)
    monkeypatch.setattr(cluster.temporary_folder, "check", lambda _: None)
    if shared:
        monkeypatch.setenv("RAY_ADDRESS", "auto")
    else:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InsufficientResources) as refused, cluster.start(cluster.PrivateRay()):
        pass
    assert str(refused.value).startswith(message)
    assert len(calls) == attempts


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
