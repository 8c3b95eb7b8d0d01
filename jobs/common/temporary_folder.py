"""The folder in which a private Ray cluster keeps its sockets and logs, checked before Ray fails in it.

Ray takes ``RAY_TMPDIR``, else ``TMPDIR``, else ``/tmp``, and fails with a traceback, or later in the middle of a job.
"""

import os
import shutil
from pathlib import Path

from detector_core.errors import BadConfig, InsufficientResources

SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux."""
BELOW = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""The longest path of a socket that Ray makes below the folder."""
FREE_BYTES = 100 * 2**20
SHARED_MEMORY = Path("/dev/shm")
CURE = "set RAY_TMPDIR to another folder"


def path() -> Path:
    """The folder."""
    variable = _variable()
    return Path(os.environ[variable] if variable else "/tmp")


def _variable() -> str:
    return next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")


def check(object_store_bytes: int = 0) -> None:
    """Returns if Ray can be started in its folder for temporary files.

    Args:
        object_store_bytes: size of Ray's object store, which lies there if /dev/shm is too small for it.

    Raises:
        BadConfig: the folder is missing, its path is too long, or this user may not write there.
        InsufficientResources: its disk is full.
    """
    variable, folder = _variable(), path()
    named = f"{variable}={folder}" if variable else str(folder)
    if not folder.is_dir():
        raise BadConfig(f"{named} is not a folder, and Ray keeps its sockets and logs there: {CURE}")
    longest = SOCKET_PATH_BYTES - len(BELOW)
    if (length := len(os.fsencode(folder))) > longest:
        raise BadConfig(
            f"{named} is a path of {length} bytes, and the sockets of Ray leave room for {longest}: "
            f"{CURE.replace('another', 'a shorter')}"
        )
    for needed in (folder, folder / "ray"):
        if needed.exists() and not os.access(needed, os.W_OK | os.X_OK):
            raise BadConfig(f"this user may not write to {needed}, where Ray keeps its sockets and logs: {CURE}")
    _check_room(named, folder, object_store_bytes)


def _check_room(named: str, folder: Path, object_store_bytes: int) -> None:
    needed_bytes, why, cure = FREE_BYTES, "", f"free space, or {CURE}"
    shared_bytes = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    if shared_bytes < object_store_bytes:
        needed_bytes += object_store_bytes
        why = f" (its object store, too, as {SHARED_MEMORY} has {shared_bytes // 2**20} MiB)"
        cure = f"free space, enlarge {SHARED_MEMORY} (docker run --shm-size 1g), or {CURE}"
    if (free := shutil.disk_usage(folder).free) < needed_bytes:
        raise InsufficientResources(
            f"the disk of {named} has {free // 2**20} MiB free, and Ray, which keeps its sockets and logs there{why}, "
            f"needs {needed_bytes // 2**20} MiB: {cure}"
        )


def check_executable(program: Path) -> None:
    """Raises BadConfig if a program in the folder cannot be executed because its disk forbids that (noexec)."""
    if not os.access(program, os.X_OK):
        raise BadConfig(
            f"{program.parent.parent} is mounted noexec, and HAProxy's launcher lies there: {CURE}, or serve with the "
            "setting front: {proxy: ray}"
        )
