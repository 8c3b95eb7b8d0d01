"""jobs.common.ray_internals: an upgrade of Ray that removes a private name is reported by that name."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from jobs.common import ray_internals

ROOT = Path(__file__).parents[3]
PRIVATE = re.compile(r"^\s*(?:from|import)\s+ray\S*\._(?:private|internal)\b", re.MULTILINE)


@pytest.mark.parametrize("module", list(ray_internals.USED))
def test_ray_still_has_what_is_used_of_it(module: str) -> None:
    name, purpose = ray_internals.USED[module]
    message = f"Ray {ray.__version__} no longer has {module}.{name}, used {purpose}: see jobs/common/ray_internals.py"
    try:
        present = hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        present = False
    assert present, message


def test_ray_train_still_has_the_hooks_that_are_overridden() -> None:
    from ray.train.torch import TorchTrainer

    for hook in ("_register_sigint_handler", "_create_default_callbacks"):
        assert hasattr(TorchTrainer, hook), (
            f"Ray {ray.__version__} no longer has TorchTrainer.{hook}: see jobs/run/launch.py"
        )


def test_no_other_module_imports_a_private_module_of_ray() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in tracked.stdout.split() if name.split("/")[0] in ("detector_core", "jobs", "serve_app")]
    assert [name for name in files if PRIVATE.search((ROOT / name).read_text())] == ["jobs/common/ray_internals.py"]


def test_without_an_autoscaler_there_are_no_limits() -> None:
    code = (
        "from jobs.common import cluster, ray_internals\n"
        "with cluster.connect():\n"
        "    print(ray_internals.autoscaler_limits(), cluster.maximum_resources()['CPU'] > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.split("\n")[-2] == "{} True"
