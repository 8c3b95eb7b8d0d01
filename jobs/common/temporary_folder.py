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
CURE = "set RAY_TMPDIR to another folder"


def check() -> None:
    """Returns if Ray can be started in its folder for temporary files.

    Raises:
        BadConfig: the folder is missing, its path is too long, or this user may not write there.
        InsufficientResources: its disk is full.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    folder = Path(os.environ[variable] if variable else "/tmp")
    named = f"{variable}={folder}" if variable else str(folder)
    if not folder.is_dir():
        raise BadConfig(f"{named} is not a folder, and Ray keeps its sockets and logs there: {CURE}")
    longest = SOCKET_PATH_BYTES - len(BELOW)
    if (length := len(os.fsencode(folder))) > longest:
        raise BadConfig(
            f"{named} is a path of {length} bytes, and the sockets of Ray leave room for {longest}: "
            f"{CURE.replace('another', 'a shorter')}"
        )
    for path in (folder, folder / "ray"):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise BadConfig(f"this user may not write to {path}, where Ray keeps its sockets and logs: {CURE}")
    if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
        raise InsufficientResources(
            f"the disk of {named} has {free // 2**20} MiB free, and Ray, which keeps its sockets and logs there, needs "
            f"{FREE_BYTES // 2**20} MiB: free space, or {CURE}"
        )
