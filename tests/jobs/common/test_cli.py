"""jobs.common.cli: what a job prints when it is interrupted, killed, fails or succeeds."""

import argparse
import re
import subprocess
import sys
import time
from typing import NoReturn

import pytest

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
        ("pass", ""),
    ],
)
def test_a_job_that_does_not_succeed_prints_one_line_that_says_why(statement: str, message: str) -> None:
    code = f"""
import argparse, os, signal
from detector_core.errors import DetectorError
from jobs.common import cli
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


def test_a_waiting_job_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "WAIT_MESSAGE_EVERY_S", 0.02)
    deadline, err = time.monotonic() + 30, ""
    with cli.waiting_for("Ray to start"):
        while "waiting for Ray to start, " not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capfd.readouterr().err
    assert "waiting for Ray to start, 0 s so far" in err
