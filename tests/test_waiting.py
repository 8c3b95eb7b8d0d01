"""The helper by which tests wait for progress."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import progress

SPEAKS = "import time\nfor n in range(6): print(n, flush=True); time.sleep(0.2)"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 1.0)


def test_a_process_that_goes_on_writing_is_waited_for() -> None:
    done = progress.run([sys.executable, "-c", SPEAKS])
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, list("012345"), "")


def test_a_silent_process_is_killed_and_what_it_wrote_is_shown() -> None:
    code = "import sys, time; print('last words', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(progress.Stuck, match="last words"):
        progress.run([sys.executable, "-c", code])


def test_a_state_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **pipes)
    with pytest.raises(progress.Stuck, match="no progress beyond 0"):
        progress.wait_until(lambda: False, process, progress=lambda: len(list(tmp_path.iterdir())))


def test_a_process_that_ends_before_the_condition_holds_is_named() -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no room')"], **pipes)
    with pytest.raises(AssertionError, match=r"it ended with 1.*no room"):
        progress.wait_until(lambda: False, process)
