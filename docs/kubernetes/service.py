"""Prints the Kubernetes manifest (a RayService) of the service that serve_app/config.yaml configures.

  python docs/kubernetes/service.py s3://BUCKET/models | kubectl apply -f -

MODELS is where the pods find the promoted models: an object store, or a path that every pod mounts. The cluster is the
one in cluster.yaml, with its workers without a GPU, of which at least one always runs. When the manifest changes,
KubeRay starts a new cluster next to the old one and switches the traffic over once it answers. HAProxy runs in each
pod, with the limits of config.yaml; FORWARDED_ALLOW_IPS must be the pods' network. Give the service detector-serve-svc,
port 8000, an Ingress with TLS, and expose nothing else.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

from serve_app import front
from serve_app.settings import Settings

FRONT_FOLDER = "/opt/front"
"""Where the Dockerfile installs the launcher of HAProxy."""
PODS = "127.0.0.1,10.0.0.0/8"
"""EDIT: the pods' network, whose HAProxy tells replicas the client's address."""
KUBERNETES = Path(__file__).parent
SERVE_CONFIG = KUBERNETES.parents[1] / "serve_app" / "config.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of as references, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- yaml's interface
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def service(models: str) -> dict[str, Any]:
    """The manifest: the cluster for jobs with its workers without a GPU, of which there is always one."""
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    (application,) = config["applications"]
    application["args"]["models"] = models
    cluster = copy.deepcopy(yaml.safe_load((KUBERNETES / "cluster.yaml").read_text())["spec"])
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["ports"].append({"containerPort": config["http_options"]["port"], "name": "serve"})
    (workers,) = (group for group in cluster["workerGroupSpecs"] if group["groupName"] == "cpu")
    workers |= {"replicas": 1, "minReplicas": 1}
    cluster["workerGroupSpecs"] = [workers]
    variables = front.environment(Settings(**application["args"]).front_limits(), FRONT_FOLDER)
    variables["FORWARDED_ALLOW_IPS"] = PODS
    added = [{"name": name, "value": value} for name, value in variables.items()]
    for container in (head, workers["template"]["spec"]["containers"][0]):
        container["env"] = [*container["env"], *added]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "detector"},
        "spec": {"serveConfigV2": yaml.dump(config, sort_keys=False), "rayClusterConfig": cluster},
    }


def to_yaml(manifest: dict[str, Any]) -> str:
    """The manifest as YAML for ``kubectl apply``."""
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    print(to_yaml(service(sys.argv[1])), end="")
