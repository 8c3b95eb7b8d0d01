"""The project is installed with its environment, and the package that is built from it holds every file it needs."""

import json
import re
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


def test_every_file_that_installs_uv_names_the_same_version() -> None:
    version = re.compile(r"(?:\buv(?:==|:|/| )|UV_VERSION := )(\d+(?:\.\d+)+)")
    names = ("Makefile", "Dockerfile", "cluster.yaml", "docs/clusters/gcp.yaml", "docs/clusters/local.yaml")
    named = {name: set(version.findall((ROOT / name).read_text().replace("\\.", "."))) for name in names}
    assert len(set.union(*named.values())) == 1, named
    assert all(named.values()), named
    assert "uv==$(UV_VERSION)" in (ROOT / "Makefile").read_text()


def test_ci_installs_every_package_without_which_a_test_is_skipped() -> None:
    installed = re.search(r"^PACKAGES=\((.*?)\)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert installed
    files = [*(ROOT / "tests").rglob("*.py"), ROOT / "reliability" / "cluster" / "run.sh"]
    reasons = [re.findall(r"\(Debian: ([a-z0-9 -]+)\)|apt-get install ([a-z]+)", file.read_text()) for file in files]
    needed = {package for found in reasons for names in found for package in " ".join(names).split()}
    assert {"chromium", "prometheus-alertmanager", "rclone", "systemd"} <= needed
    assert needed - {"util-linux", "openssh-client"} <= set(installed[1].split())  # of Debian itself, of openssh-server
