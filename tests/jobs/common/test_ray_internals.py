"""jobs.common.ray_internals: it names what an upgrade of Ray removed, and alone imports private modules of Ray."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from jobs.common import ray_internals

ROOT = Path(__file__).parents[3]
PACKAGES = ("detector_core", "jobs", "serve_app", "benchmarks", "reliability", "tests")
PRIVATE = re.compile(r"^\s*(?:from|import)\s+ray\S*\._(?:private|internal)\b", re.MULTILINE)


@pytest.mark.parametrize("module", list(ray_internals.USED))
def test_ray_still_has_each_private_name_that_is_used(module: str) -> None:
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
    """Except tests/cluster, which checks files with Ray's own validators."""
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "cluster" not in path.parts]
    importing = [str(path.relative_to(ROOT)) for path in modules if PRIVATE.search(path.read_text())]
    assert importing == ["jobs/common/ray_internals.py"]


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
