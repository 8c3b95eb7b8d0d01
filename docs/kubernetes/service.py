"""Prints the RayService that serves what serve_app/config.yaml says, on the cluster that cluster.yaml describes.

  python docs/kubernetes/service.py s3://BUCKET/models | kubectl apply -f -

MODELS is where the pods find the promoted models: an object store, or a path that every pod mounts. KubeRay brings up
a new cluster beside the old one when the manifest changes, and moves the traffic when it answers. Give the service
detector-serve-svc, port 8000, an Ingress with TLS, and nothing else.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


class _Plain(yaml.SafeDumper):
    """Writes a value twice instead of a reference to it."""

    def ignore_aliases(self, _value: Any) -> bool:
        return True


def service(models: str) -> dict[str, Any]:
    """The manifest: head and workers as for jobs, the workers without GPUs and at least one of them."""
    config = yaml.safe_load((HERE.parents[1] / "serve_app" / "config.yaml").read_text())
    for application in config["applications"]:
        application["args"]["models"] = models
    cluster = copy.deepcopy(yaml.safe_load((HERE / "cluster.yaml").read_text())["spec"])
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["ports"].append({"containerPort": config["http_options"]["port"], "name": "serve"})
    group = cluster["workerGroupSpecs"][0]
    group |= {"groupName": "cpu", "replicas": 1, "minReplicas": 1, "maxReplicas": 8}
    pod = group["template"]["spec"]
    del pod["tolerations"]
    for side in pod["containers"][0]["resources"].values():
        del side["nvidia.com/gpu"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "detector"},
        "spec": {
            "serveConfigV2": yaml.dump(config, sort_keys=False),
            "rayClusterConfig": cluster,
        },
    }


def text(models: str) -> str:
    """The manifest as YAML."""

    def lines_as_they_are(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, "|" if "\n" in value else None)

    _Plain.add_representer(str, lines_as_they_are)
    return yaml.dump(service(models), Dumper=_Plain, sort_keys=False, width=120)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    print(text(sys.argv[1]), end="")
