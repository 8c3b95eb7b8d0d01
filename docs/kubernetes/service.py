"""Prints the Kubernetes manifest (a RayService) of the service that serve_app/config.yaml configures.

  python docs/kubernetes/service.py s3://BUCKET/models | kubectl apply -f -
  python docs/kubernetes/service.py s3://BUCKET/models --feedback detector-feedback | kubectl apply -f -

MODELS is where the pods find the promoted models: an object store, or a path that every pod mounts. The cluster is the
one in cluster.yaml, with its workers without a GPU, of which at least two always run, on different nodes that are
neither spot nor have GPUs. The head keeps its state in Redis: while it is away, the workers go on answering. When the
manifest changes, KubeRay starts a new cluster next to the old one and switches the traffic over once it answers.
HAProxy runs in each pod, with the limits of config.yaml; FORWARDED_ALLOW_IPS must be the pods' network. production.yaml
has what surrounds it: Redis, network policies, the Ingress with TLS, the volume for feedback, where logs go.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import yaml

from serve_app import front
from serve_app.settings import Settings

FRONT_FOLDER = "/opt/front"
"""Where the Dockerfile installs the launcher of HAProxy."""
PODS = "127.0.0.1,10.0.0.0/8"
"""EDIT: the pods' network, whose HAProxy tells replicas the client's address."""
REDIS = "detector-redis:6379"
"""That of production.yaml, or EDIT: a managed one. Its password is in the secret ``redis``."""
KUBERNETES = Path(__file__).parent
SERVE_CONFIG = KUBERNETES.parents[1] / "serve_app" / "config.yaml"
LABELS = {"detector": "service"}
WORKERS = 2
FEEDBACK_FOLDER = "/srv/feedback"
NOT_ON = (
    {"key": "cloud.google.com/gke-spot", "operator": "DoesNotExist"},
    {"key": "eks.amazonaws.com/capacityType", "operator": "NotIn", "values": ["SPOT"]},
    {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]},
    {"key": "cloud.google.com/gke-accelerator", "operator": "DoesNotExist"},
    {"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]},
)
"""Labels of nodes that may be taken away, or are meant for training."""
LOGS = {
    "name": "logs",
    "image": "fluent/fluent-bit:3.2.4",
    "resources": {name: {"cpu": "100m", "memory": "128Mi"} for name in ("limits", "requests")},
    "volumeMounts": [
        {"name": "ray", "mountPath": "/tmp/ray", "readOnly": True},
        {"name": "logs", "mountPath": "/fluent-bit/etc/fluent-bit.conf", "subPath": "fluent-bit.conf"},
    ],
}
"""Prints the logs of Serve, which the node's log agent collects; Kubernetes keeps none of a pod that is gone."""


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of as references, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- yaml's interface
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def service(models: str, feedback: str = "") -> dict[str, Any]:
    """The manifest: the cluster for jobs with its workers without a GPU, of which there are always two.

    Args:
        models: where the pods find the promoted models.
        feedback: name of the volume claim for feedback; without it, the service accepts none.
    """
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    (application,) = config["applications"]
    arguments = application["args"]
    arguments["models"] = models
    arguments["detectors"]["min_replicas"] = WORKERS
    if feedback:
        arguments["http"]["feedback_folder"] = FEEDBACK_FOLDER
    cluster = copy.deepcopy(yaml.safe_load((KUBERNETES / "cluster.yaml").read_text())["spec"])
    cluster["gcsFaultToleranceOptions"] = {
        "redisAddress": REDIS,
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    (workers,) = (group for group in cluster["workerGroupSpecs"] if group["groupName"] == "cpu")
    workers |= {"replicas": WORKERS, "minReplicas": WORKERS}
    cluster["workerGroupSpecs"] = [workers]
    variables = front.environment(Settings(**arguments).front_limits(), FRONT_FOLDER)
    variables["FORWARDED_ALLOW_IPS"] = PODS
    port = {"containerPort": config["http_options"]["port"], "name": "serve"}
    for group in (cluster["headGroupSpec"], workers):
        _adapt_pod(group["template"], port, variables, feedback)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "detector"},
        "spec": {"serveConfigV2": yaml.dump(config, sort_keys=False), "rayClusterConfig": cluster},
    }


def _adapt_pod(template: dict[str, Any], port: dict[str, Any], variables: dict[str, str], feedback: str) -> None:
    """Adds to a pod of cluster.yaml what a pod of the service has on top."""
    template["metadata"]["labels"] = LABELS
    pod = template["spec"]
    (ray,) = pod["containers"]
    ray["ports"] = [*ray.get("ports", []), port]
    ray["env"] = [*ray["env"], *({"name": name, "value": value} for name, value in variables.items())]
    mounts = [{"name": "ray", "mountPath": "/tmp/ray"}]
    volumes = [{"name": "ray", "emptyDir": {}}, {"name": "logs", "configMap": {"name": "detector-logs"}}]
    if feedback:
        mounts.append({"name": "feedback", "mountPath": FEEDBACK_FOLDER})
        volumes.append({"name": "feedback", "persistentVolumeClaim": {"claimName": feedback}})
    ray["volumeMounts"] = [*ray.get("volumeMounts", []), *mounts]
    pod["volumes"] = [*pod.get("volumes", []), *volumes]
    pod["containers"].append({**LOGS, "securityContext": ray["securityContext"]})
    pod["securityContext"] = {"fsGroup": ray["securityContext"]["runAsUser"]}  # who may write to the volumes
    pod["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [*NOT_ON]}]}
        }
    }
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": LABELS},
        }
    ]


def to_yaml(manifest: dict[str, Any]) -> str:
    """The manifest as YAML for ``kubectl apply``."""
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODELS", help="where the pods find the promoted models")
    parser.add_argument("--feedback", default="", metavar="CLAIM", help="accept feedback into this volume claim")
    arguments = parser.parse_args()
    print(to_yaml(service(arguments.models, arguments.feedback)), end="")
