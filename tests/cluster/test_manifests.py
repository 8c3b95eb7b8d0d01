"""The image and the Kubernetes manifests: as far as they can be checked without an engine or a cluster."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app import front

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "docs" / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
RAY = next(package["version"] for package in LOCK["package"] if package["name"] == "ray")
MODELS = "s3://bucket/models"


def manifest(name: str) -> dict[str, Any]:
    if name == "service":
        made = subprocess.run(
            [sys.executable, KUBERNETES / "service.py", MODELS], capture_output=True, text=True, check=True
        )
        return dict(yaml.safe_load(made.stdout))
    return dict(yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text()))


def cluster_of(name: str) -> dict[str, Any]:
    spec = manifest(name)["spec"]
    return dict(spec["rayClusterConfig"] if name == "service" else spec)


@pytest.mark.parametrize(("name", "kind"), [("cluster", "RayCluster"), ("job", "RayJob"), ("service", "RayService")])
def test_a_manifest_is_of_its_kind(name: str, kind: str) -> None:
    content = manifest(name)
    assert (content["apiVersion"], content["kind"]) == ("ray.io/v1", kind)
    assert set(content["metadata"]) & {"name", "generateName"}


@pytest.mark.parametrize("name", ["cluster", "service"])
def test_clusters_run_the_locked_ray_and_have_what_kuberay_requires(name: str) -> None:
    cluster = cluster_of(name)
    assert cluster["rayVersion"] == RAY
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert isinstance(group["rayStartParams"], dict)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith(f":ray-{RAY}")
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["securityContext"]["runAsNonRoot"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in group["template"]["spec"].get("volumes", [])}
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_job_runs_on_that_cluster_with_flags_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    spec = manifest("job")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": manifest("cluster")["metadata"]["name"]}
    verb = re.match(r"python -m jobs\.(\w+) ", spec["entrypoint"])
    assert verb
    with pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{verb[1]}").main(["--help"])
    usage = capsys.readouterr().out
    assert all(flag in usage for flag in re.findall(r"--[a-z-]+", spec["entrypoint"]))


def test_the_service_is_the_serve_config() -> None:
    served = yaml.safe_load(manifest("service")["spec"]["serveConfigV2"])
    config = yaml.safe_load((ROOT / "serve_app" / "config.yaml").read_text())
    for application in config["applications"]:
        application["args"]["models"] = MODELS
    assert served == config
    ports = cluster_of("service")["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert config["http_options"]["port"] in [port["containerPort"] for port in ports]


def test_the_service_has_haproxy_in_every_pod_with_the_limits_of_its_configuration() -> None:
    cluster = cluster_of("service")
    (application,) = yaml.safe_load(manifest("service")["spec"]["serveConfigV2"])["applications"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        values = {entry["name"]: entry["value"] for entry in container["env"]}
        limits = json.loads(values[front.VARIABLE])
        assert limits["body_bytes"] == application["args"]["http"]["limits"]["max_video_bytes"]
        launcher = Path(values["RAY_SERVE_HAPROXY_BINARY_PATH"])
        assert re.search(rf"^RUN .* -m serve_app\.front {launcher.parent} ", DOCKERFILE, flags=re.MULTILINE)


def test_the_image_is_pinned_locked_and_not_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert "uv sync --locked" in DOCKERFILE
    assert re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE)[-1] != "root"
    assert "ADD " not in DOCKERFILE
    python = re.search(r"FROM python:(\d+)\.(\d+)", DOCKERFILE)
    assert python
    assert (int(python[1]), int(python[2])) >= (3, 11)


def test_what_the_image_copies_is_let_in_and_there() -> None:
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    copied = {name for line in sources for name in line.split()}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
