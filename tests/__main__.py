"""Runs every test, in two stages, and ends with one line that says what failed: ``python -m tests`` or ``make test``.

  python -m tests                       both stages
  python -m tests -k object_store -x    what follows goes to pytest in both

The first stage runs in three processes, because tests that start services and jobs wait a fifth of their time, so that
two would not occupy two cores. The second runs the tests that measure a load or a fault (marked ``serial``), one
after another. It runs even if the first has failed. Exits 1 if anything failed; ``pytest --last-failed`` repeats that.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
PARALLEL = ("-m", "not serial", "--numprocesses=3", "--cache-clear")
SERIAL = ("-m", "serial")
NO_TESTS_COLLECTED = 5


def main(flags: list[str], stages: tuple[tuple[str, ...], ...] = (PARALLEL, SERIAL), cache: Path = CACHE) -> NoReturn:
    """Runs the stages and exits.

    Args:
        flags: what pytest gets in every stage.
        stages: what pytest gets in each.
        cache: where pytest keeps the names of failed tests.
    """
    started, exit_codes = time.monotonic(), []
    cache.unlink(missing_ok=True)
    for stage in stages:
        done = subprocess.run([sys.executable, "-m", "pytest", *stage, *flags], cwd=ROOT, check=False)
        exit_codes.append(0 if done.returncode == NO_TESTS_COLLECTED else done.returncode)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"{summary(exit_codes, cache)} ({minutes} min {seconds} s)")
    sys.exit(any(exit_codes))


def summary(exit_codes: list[int], cache: Path) -> str:
    """One line: every test passed, or which failed.

    Args:
        exit_codes: of each stage.
        cache: a JSON object whose keys are the failed tests, or absent.
    """
    if not any(exit_codes):
        return "every test passed"
    failed = sorted(json.loads(cache.read_text())) if cache.exists() else []
    broken = [f"stage {number} ended with exit code {code}" for number, code in enumerate(exit_codes, 1) if code > 1]
    return f"FAILED: {', '.join(failed + broken) or 'see above'}"


if __name__ == "__main__":
    main(sys.argv[1:])
