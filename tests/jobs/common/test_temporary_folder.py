"""jobs.common.temporary_folder: what keeps Ray from starting there is one line, before Ray is started."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from detector_core.errors import BadConfig, InsufficientResources
from jobs.common import temporary_folder

ROOT = Path(__file__).parents[3]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that RAY_TMPDIR names, with a path as short as /tmp."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary_folder, "SOCKET_PATH_BYTES", 107 + len(str(tmp_path)))
    return tmp_path


def test_a_usual_folder_is_fine(folder: Path) -> None:
    (folder / "ray").mkdir()
    temporary_folder.check()


def test_a_long_path_is_refused_in_one_line_by_every_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_job: Any, tiny_dataset: Path
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    for name in ("RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    where = ["--data", tiny_dataset, "--storage", tmp_path / "runs", "--init", "none"]
    done = run_job("train", "resnet68", *where)
    assert (done.code, done.result) == (1, {})
    assert (
        f"TMPDIR={long} is a path of {len(str(long))} bytes, and the sockets of Ray leave room for" in done.last_message
    )
    assert done.last_message.endswith("set RAY_TMPDIR to a shorter folder")


def test_a_missing_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(folder / "gone"))
    with pytest.raises(BadConfig, match=r"RAY_TMPDIR=.*/gone is not a folder"):
        temporary_folder.check()


@pytest.mark.parametrize("name", [".", "ray"])
def test_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """root may write anywhere, so the answer of the system is replaced."""
    (folder / "ray").mkdir()
    closed = folder if name == "." else folder / name
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)
    with pytest.raises(BadConfig, match=f"this user may not write to {closed}, where Ray"):
        temporary_folder.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_two_users_on_one_machine() -> None:
    """Another user asks for the folders that the Ray of the first one made, and for one of its own."""
    user = 65534
    with tempfile.TemporaryDirectory(prefix="users-", dir="/tmp") as name:
        closed, shared, own = (Path(name, kind) for kind in ("closed", "shared", "own"))
        for folder, mode in (
            (Path(name), 0o755),
            (closed, 0o755),
            (shared, 0o1777),
            (shared / "ray", 0o755),
            (own, 0o700),
        ):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        os.chown(own, user, user)
        code = (
            "import os, sys; from detector_core.errors import BadConfig; from jobs.common import temporary_folder\n"
            f"os.setgroups([]); os.setresgid(*[{user}] * 3); os.setresuid(*[{user}] * 3)\n"
            "for os.environ['RAY_TMPDIR'] in sys.argv[1:]:\n"
            "    try: print(temporary_folder.check())\n"
            "    except BadConfig as error: print(error)"
        )
        command = [sys.executable, "-c", code, closed, shared, own]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    answers = [line.partition(", where Ray")[0] for line in done.stdout.splitlines()]
    assert answers == [f"this user may not write to {one}" for one in (closed, shared / "ray")] + ["None"]


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(InsufficientResources, match=f"RAY_TMPDIR={folder} has 1 MiB free"):
        temporary_folder.check()


def test_a_small_shared_memory_takes_room_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker gives a container 64 MiB; Ray then keeps its object store in this folder."""
    free = {folder: 300 * 2**20, temporary_folder.SHARED_MEMORY: 64 * 2**20}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(2**40, 2**40 - free[place], free[place]))
    with pytest.raises(InsufficientResources, match=r"has 300 MiB free.*needs 500 MiB: free space, enlarge /dev/shm"):
        temporary_folder.check(400 * 2**20)
    free[temporary_folder.SHARED_MEMORY] = 500 * 2**20
    temporary_folder.check(400 * 2**20)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to mount a disk")
def test_a_disk_that_forbids_programs(tmp_path: Path) -> None:
    code = (
        "import pathlib; from jobs.common import temporary_folder; from serve_app import front\n"
        f"folder = pathlib.Path({str(tmp_path)!r}, 'front-1'); front.install(folder)\n"
        "temporary_folder.check_executable(folder / 'haproxy')"
    )
    run = f"mount -t tmpfs -o $0 tmpfs {tmp_path} && exec {sys.executable} -c {shlex.quote(code)}"
    for options in ("exec", "noexec"):
        command = ["unshare", "--mount", "bash", "-c", run, options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        message = f"{tmp_path} is mounted noexec, and HAProxy's launcher lies there: set RAY_TMPDIR to another folder"
        assert (done.returncode != 0, message in done.stderr) == (options == "noexec", options == "noexec"), done.stderr
