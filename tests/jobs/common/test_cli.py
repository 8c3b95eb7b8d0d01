"""How a job ends: interrupted, killed, with an error, well."""

import argparse
import re
import subprocess
import sys
import time
from typing import NoReturn

import pytest

from jobs.common import cli


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "run the same command again to continue"), (("with --resume it goes on",), "with --resume")],
)
def test_an_interrupted_job_says_how_to_go_on(
    words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(_: argparse.Namespace) -> NoReturn:
        raise KeyboardInterrupt(*words)

    with pytest.raises(SystemExit) as ended:
        cli.run(job, argparse.Namespace())
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (130, "")
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("end", "says"),
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
def test_however_a_job_ends_the_last_line_says_so_once(end: str, says: str) -> None:
    code = f"""
import argparse, os, signal
from detector_core.errors import DetectorError
from jobs.common import cli
def job(_):
    {end}
    return {{}}
cli.run(job, argparse.Namespace())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert len(lines) == bool(says)
    assert re.search(says, "".join(lines))
    assert (done.returncode == 0) == (not says)


def test_a_job_that_waits_says_for_what(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "WAIT_MESSAGE_EVERY_S", 0.02)
    deadline, err = time.monotonic() + 30, ""
    with cli.waiting_for("Ray to start"):
        while "waiting for Ray to start, " not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capfd.readouterr().err
    assert "waiting for Ray to start, 0 s so far" in err
