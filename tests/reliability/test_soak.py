"""The soak in its short form; ``make soak`` runs it for an hour."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.serial
LIMIT_S = 600


def test_under_a_mixed_load_with_promotions_nothing_fails_and_nothing_leaks() -> None:
    command = [sys.executable, "-m", "reliability.soak", "--minutes", "0.12", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == 0
    assert result["promotions"] == 3
    assert result["models_that_answered"] == 4
