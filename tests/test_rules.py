"""What holds for the project as a whole: who imports whom, and docs that name what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from detector_core.networks.variants import VARIANTS, spec_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
VERBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "def main(" in path.read_text())


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def _printed_by(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_core_loads_no_ray_and_no_web_framework() -> None:
    code = (
        "import importlib, pkgutil, sys, detector_core\n"
        "for module in pkgutil.walk_packages(detector_core.__path__, 'detector_core.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([name for name in ('ray', 'fastapi', 'jobs', 'serve_app') if name in sys.modules])"
    )
    assert _printed_by(code) == "[]"


def test_the_paper_s_network_needs_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys; from detector_core.config import ModelSpec\n"
        "from detector_core.networks import artifacts, factory\n"
        "factory.build(ModelSpec(architecture='resnet68', layout=(1, 1, 1, 1)))\n"
        "print([name for name in ('timm', 'torchvision', 'facenet_pytorch') if name in sys.modules])"
    )
    assert _printed_by(code) == "[]"


def test_the_readme_s_table_is_table_ii() -> None:
    rows = re.findall(r"^\| `([a-z0-9_-]+)` \| ([0-9.]+) \| (\d+) \| (\d+) px \|", README, flags=re.MULTILINE)
    found = {name: (float(rate), int(epochs), int(size)) for name, rate, epochs, size in rows}
    specs = {name: spec_for(name) for name in VARIANTS}
    assert found == {
        name: (spec.optim.learning_rate, spec.optim.epochs, spec.preprocess.image_size) for name, spec in specs.items()
    }


@pytest.mark.parametrize("verb", VERBS)
def test_every_job_is_in_the_docs(verb: str) -> None:
    docs = README + "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert f"jobs.{verb}" in docs or f"make {verb}" in docs


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    pairs = set(re.findall(r"^ +make ([a-z]+)|`make ([a-z]+)`", README, flags=re.MULTILINE))
    named = {one or other for one, other in pairs}
    assert {"demo", "test", "serve"} <= named <= targets
