"""The helper by which tests wait for progress."""

import sys
from pathlib import Path

import pytest

from tests.support import progress
from tests.support.progress import Process, Stuck

WRITES = "import time\nfor n in range(6): print(n, flush=True); time.sleep(0.3)"
SILENT = "import sys, time; print('last words', file=sys.stderr, flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 1.5)


def python(code: str) -> Process:
    return Process([sys.executable, "-c", code])


def test_a_process_that_goes_on_writing_is_waited_for() -> None:
    assert python(WRITES).finish() == (0, "0\n1\n2\n3\n4\n5\n", "")


def test_a_silent_process_is_killed_and_what_it_wrote_is_shown() -> None:
    with pytest.raises(Stuck, match="last words"):
        python(SILENT).finish()


def test_a_state_that_does_not_change_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Stuck, match="no progress beyond 0"):
        python(SILENT).wait_until(lambda: False, progress=lambda: len(list(tmp_path.iterdir())))


def test_a_process_that_ends_before_the_condition_holds_is_named() -> None:
    with pytest.raises(AssertionError, match=r"it ended with 1.*no room"):
        python("raise SystemExit('no room')").wait_until(lambda: False)
