"""The image and the Kubernetes manifests: as far as they can be checked without an engine or a cluster.

Kubernetes' own schemas (package kubernetes-validate) check everything but KubeRay's three kinds, and the pods in them.
"""

import functools
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serve_app import front

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "docs" / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
RAY = next(package["version"] for package in LOCK["package"] if package["name"] == "ray")
MODELS = "s3://bucket/models"
CLAIM = "detector-feedback"
KUBERNETES_VERSION = "1.34"
SURROUNDINGS = list(yaml.safe_load_all((KUBERNETES / "production.yaml").read_text()))


@functools.cache
def _service() -> str:
    command = [sys.executable, str(KUBERNETES / "service.py"), MODELS, "--feedback", CLAIM]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def manifest(name: str) -> dict[str, Any]:
    if name == "service":
        return dict(yaml.safe_load(_service()))
    return dict(yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text()))


def surrounding(kind: str, name: str) -> dict[str, Any]:
    """An object of production.yaml."""
    (found,) = (item for item in SURROUNDINGS if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return dict(found)


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
        container, *others = group["template"]["spec"]["containers"]
        assert container["image"].endswith(f":ray-{RAY}")
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for one in (container, *others) for mount in one.get("volumeMounts", [])}
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
        application["args"]["detectors"]["min_replicas"] = 2
        application["args"]["http"]["feedback_folder"] = "/srv/feedback"
    assert served == config
    ports = cluster_of("service")["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert config["http_options"]["port"] in [port["containerPort"] for port in ports]


def test_the_service_has_haproxy_in_every_pod_with_the_limits_of_its_configuration() -> None:
    cluster = cluster_of("service")
    (application,) = yaml.safe_load(manifest("service")["spec"]["serveConfigV2"])["applications"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        container = group["template"]["spec"]["containers"][0]
        values = {entry["name"]: entry["value"] for entry in container["env"]}
        limits = json.loads(values[front.VARIABLE])
        assert limits["body_bytes"] == application["args"]["http"]["limits"]["max_video_bytes"]
        launcher = Path(values["RAY_SERVE_HAPROXY_BINARY_PATH"])
        assert re.search(rf"^RUN .* -m serve_app\.front {launcher.parent} ", DOCKERFILE, flags=re.MULTILINE)


@pytest.mark.parametrize("item", SURROUNDINGS, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_kubernetes_schema_accepts_an_object(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


def pods() -> dict[str, dict[str, Any]]:
    """Every pod of the manifests by a name for it, as a manifest of its own."""
    templates = {"submitter": manifest("job")["spec"]["submitterPodTemplate"]}
    templates["redis"] = surrounding("StatefulSet", "detector-redis")["spec"]["template"]
    for name in ("cluster", "service"):
        cluster = cluster_of(name)
        templates[f"{name} head"] = cluster["headGroupSpec"]["template"]
        templates |= {f"{name} {group['groupName']}": group["template"] for group in cluster["workerGroupSpecs"]}
    return {name: {"apiVersion": "v1", "kind": "Pod", **template} for name, template in templates.items()}


PODS = ("submitter", "redis", "cluster head", "cluster gpu", "cluster cpu", "service head", "service cpu")


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_schema_accepts_a_pod_and_its_containers_are_confined(name: str) -> None:
    assert set(pods()) == set(PODS)
    pod = pods()[name]
    kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)
    for container in pod["spec"]["containers"]:
        context = {**pod["spec"].get("securityContext", {}), **container["securityContext"]}
        assert context["runAsNonRoot"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert ("head" in name) == pod["spec"].get("automountServiceAccountToken", True)  # its autoscaler asks Kubernetes


def test_kubernetes_schema_sees_a_mistake() -> None:
    broken = pods()["cluster gpu"]
    broken["spec"]["nodeSelectr"] = broken["spec"].pop("nodeSelector")
    with pytest.raises(kubernetes_validate.ValidationError, match="nodeSelectr"):
        kubernetes_validate.validate(broken, KUBERNETES_VERSION, strict=True)


def test_training_runs_on_gpu_nodes_and_the_service_neither_there_nor_on_spot_nodes() -> None:
    assert pods()["cluster gpu"]["spec"]["nodeSelector"]
    for name in ("service head", "service cpu"):
        required = pods()[name]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = required["nodeSelectorTerms"]
        rules = {rule["key"]: rule for rule in term["matchExpressions"]}
        for key in ("cloud.google.com/gke-spot", *pods()["cluster gpu"]["spec"]["nodeSelector"]):
            assert rules[key]["operator"] == "DoesNotExist"
        assert rules["eks.amazonaws.com/capacityType"] == {
            "key": "eks.amazonaws.com/capacityType", "operator": "NotIn", "values": ["SPOT"],
        }  # fmt: skip


def test_the_service_survives_its_head_and_a_drained_node() -> None:
    cluster = cluster_of("service")
    tolerance, redis = cluster["gcsFaultToleranceOptions"], surrounding("Service", "detector-redis")
    assert tolerance["redisAddress"] == f"{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}"
    key = tolerance["redisPassword"]["valueFrom"]["secretKeyRef"]
    (container,) = pods()["redis"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == key
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no replica ends with the head
    (workers,) = cluster["workerGroupSpecs"]
    budget = surrounding("PodDisruptionBudget", "detector-service")["spec"]
    # The pods' owner has no scale subresource: anything but an integer minAvailable blocks every drain.
    assert set(budget) == {"minAvailable", "selector"}
    assert type(budget["minAvailable"]) is int
    assert 0 < budget["minAvailable"] < workers["minReplicas"]
    labels = pods()["service cpu"]["metadata"]["labels"]
    assert budget["selector"] == {"matchLabels": {**labels, "ray.io/node-type": "worker"}}  # KubeRay's, not the head's


def test_every_port_is_closed_but_those_that_a_policy_opens() -> None:
    opened = {}
    for name in ("redis", "service", "jobs"):
        policy = surrounding("NetworkPolicy", f"detector-{name}")["spec"]
        label = policy["podSelector"]["matchLabels"]
        assert policy["policyTypes"] == ["Ingress"]
        rules = [(rule["from"], {port["port"] for port in rule.get("ports", [])}) for rule in policy["ingress"]]
        everything = [sources for sources, ports in rules if not ports]
        assert everything == ([] if name == "redis" else [[{"podSelector": {"matchLabels": label}}]])
        opened[name] = set().union(*(ports for _, ports in rules))
        labelled = [pod for pod, made in pods().items() if made["metadata"]["labels"] == label]
        assert labelled, name
    assert opened == {"redis": {6379}, "service": {8265, 8000, 8080}, "jobs": {8265, 8080}}
    assert all("detector" in made["metadata"]["labels"] for made in pods().values())


def test_the_ingress_speaks_tls_to_the_service_and_takes_clips() -> None:
    ingress = surrounding("Ingress", "detector")
    (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]
    (path,) = rule["http"]["paths"]
    port = yaml.safe_load(manifest("service")["spec"]["serveConfigV2"])["http_options"]["port"]
    name = f"{manifest('service')['metadata']['name']}-serve-svc"  # that KubeRay gives it
    assert path["backend"]["service"] == {"name": name, "port": {"number": port}}
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "51m"


def test_feedback_and_logs_have_volumes_that_exist() -> None:
    for name in ("service head", "service cpu"):
        volumes = {volume["name"]: volume for volume in pods()[name]["spec"]["volumes"]}
        assert surrounding("PersistentVolumeClaim", volumes["feedback"]["persistentVolumeClaim"]["claimName"])
        files = surrounding("ConfigMap", volumes["logs"]["configMap"]["name"])["data"]
        _, logs = pods()[name]["spec"]["containers"]
        assert {mount["subPath"] for mount in logs["volumeMounts"] if mount["name"] == "logs"} == set(files)


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
