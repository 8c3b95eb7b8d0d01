"""The project is installed with its environment, and the package that is built from it holds every file it needs."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("detector_core", "jobs", "serve_app")
UV = shutil.which("uv") or shutil.which("uv", path=ROOT / ".uv" / "bin")


def test_the_packages_can_be_imported_from_any_folder(tmp_path: Path) -> None:
    code = "import json, detector_core, jobs, serve_app as s; print(json.dumps([detector_core.__file__, s.__file__]))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == [str(ROOT / name / "__init__.py") for name in ("detector_core", "serve_app")]


@pytest.mark.skipif(UV is None, reason="uv is neither on the PATH nor in .uv/")
def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    assert UV
    subprocess.run([UV, "build", "--wheel", "--offline", "--quiet", "--out-dir", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith(PACKAGES) and not name.endswith("/")}
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    assert packed == {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
