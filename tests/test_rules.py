"""Rules for the project as a whole: which package may import which."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def _output_of(code: str) -> str:
    """What a new Python process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_core_imports_neither_ray_nor_a_web_framework() -> None:
    code = (
        "import importlib, pkgutil, sys, detector_core\n"
        "for module in pkgutil.walk_packages(detector_core.__path__, 'detector_core.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([name for name in ('ray', 'fastapi', 'jobs', 'serve_app') if name in sys.modules])"
    )
    assert _output_of(code) == "[]"


def test_a_verdict_with_faces_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import jobs.predict, jobs.scoring.single; from detector_core.images import faces\n"
        "faces.warm_up()\n"
        "print([name for name in ('torch', 'torchvision', 'facenet_pytorch', 'ray') if name in sys.modules])"
    )
    assert _output_of(code) == "[]"


def test_the_paper_s_network_needs_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys; from detector_core.config import ModelSpec\n"
        "from detector_core.networks import artifacts, factory\n"
        "factory.build(ModelSpec(architecture='resnet68', layout=(1, 1, 1, 1)))\n"
        "print([name for name in ('timm', 'torchvision', 'facenet_pytorch') if name in sys.modules])"
    )
    assert _output_of(code) == "[]"
