"""detector_core.storage.os_errors: one line that names the file, if it is known, and says what to do."""

import errno
import os

import pytest

from detector_core.storage.os_errors import explain, is_lasting


@pytest.mark.parametrize(
    ("error", "line", "lasting"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/a.csv"),
            "the disk is full (/data/a.csv): free some space, then run the same command again to continue",
            True,
        ),
        (
            OSError(errno.EACCES, "Permission denied", b"/data"),
            f"permission denied (/data): give user {os.geteuid()} access to it, or choose another path",
            True,
        ),
        (  # as pyarrow raises it: the file is in the message only
            OSError(errno.ENOENT, "Failed to open local file '/data/a.parquet'. Detail: [errno 2] No such file"),
            "there is no such file or folder (/data/a.parquet): check the path",
            True,
        ),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "Bad file descriptor: run the same command again to", False),
        (OSError("lost\nmore"), "lost: run the same command again to continue", False),
    ],
)
def test_an_error_is_explained_in_a_line(error: OSError, line: str, lasting: bool) -> None:
    assert explain(error).startswith(line)
    assert is_lasting(error) == lasting


def test_the_cause_of_an_error_from_a_worker_is_explained() -> None:
    error = OSError("traceback of a worker")
    error.cause = IsADirectoryError(errno.EISDIR, "Is a directory", "/models/a")  # type: ignore[attr-defined]
    assert explain(error) == "a folder is where a file should be (/models/a): move it away, or choose another path"
