"""jobs.common.cli: what a job prints when it is interrupted, killed, fails or succeeds."""

import argparse
import os
import re
import subprocess
import sys
import time
from typing import NoReturn

import pytest
from ray.exceptions import RayTaskError

from detector_core.storage import os_errors
from jobs.common import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "run the same command again to continue"), (("add --resume to continue",), "add --resume to continue")],
)
def test_an_interrupted_job_says_how_to_continue(
    arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(_: argparse.Namespace) -> NoReturn:
        raise KeyboardInterrupt(*arguments)

    with pytest.raises(SystemExit) as exited:
        cli.run(job, argparse.Namespace())
    out, err = capfd.readouterr()
    assert (exited.value.code, out) == (130, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "error: the job died: it was killed, possibly because memory ran out",
        ),
        ("os._exit(1)", "error: the job died"),
        ("cli.exit_now('Ray is gone')", "error: Ray is gone"),
        ("raise DetectorError('no room')", "error: no room"),
        ("open('/nowhere/x')", r"error: there is no such file or folder \(/nowhere/x\): check the path"),
        ("open(b'/nowhere/x')", r"error: there is no such file or folder \(/nowhere/x\): check the path"),
        (
            "os.mkdir('/dev/null/x')",
            r"error: a part of the path is a file, not a folder \(/dev/null/x\): choose another",
        ),
        (
            "fs.LocalFileSystem().open_input_stream('/dev/null/x')",
            r"error: a part of the path .*\(/dev/null/x\): choose",
        ),
        ("raise OSError(errno.ENOSPC, 'No space left')", "error: the disk is full: free some space, then run the same"),
        (
            "raise OSError(errno.EIO, 'Input/output error', 'x')",
            r"error: Input/output error \(x\): run the same command",
        ),
        ("raise OSError('first\\nsecond')", "error: first: run the same command again"),
        ("pass", ""),
    ],
)
def test_a_job_that_does_not_succeed_prints_one_line_that_says_why(statement: str, message: str) -> None:
    code = f"""
import argparse, errno, os, signal, sys
from detector_core.errors import DetectorError
from jobs.common import cli
from pyarrow import fs
def job(_):
    {statement}
    return {{}}
cli.run(job, argparse.Namespace())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert len(lines) == bool(message)
    assert re.search(message, "".join(lines))
    assert (done.returncode == 0) == (not message)


def test_an_error_of_the_system_that_ray_carries_is_explained_without_its_traceback() -> None:
    error = RayTaskError("task", "a traceback\nof many lines", PermissionError(13, "Permission denied", "/models/live"))
    assert os_errors.explain(error.as_instanceof_cause()) == (  # type: ignore[arg-type]  # a subclass of both
        f"permission denied (/models/live): give user {os.geteuid()} access to it, or choose another path"
    )


def test_a_result_that_nobody_reads_is_one_line() -> None:
    code = "import argparse; from jobs.common import cli; cli.run(lambda _: {}, argparse.Namespace())"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == "error: the reader of the output has ended: run the command again without it\n"


def test_a_waiting_job_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "WAIT_MESSAGE_EVERY_S", 0.02)
    deadline, err = time.monotonic() + 30, ""
    with cli.waiting_for("Ray to start"):
        while "waiting for Ray to start, " not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capfd.readouterr().err
    assert re.search(r"^waiting for Ray to start, \d+ s so far$", err, re.MULTILINE)
