"""jobs.search.live_table: the status of a trial while a search runs, and trials whose folder is gone."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from detector_core.data import manifest
from detector_core.errors import BrokenArtifact
from jobs.search.live_table import TrialLogs, to_trial


@pytest.mark.parametrize(
    ("status", "epochs_done", "shown"),
    [
        ("PENDING", 0, "waiting"),
        ("RUNNING", 1, "running"),
        ("TERMINATED", 1, "stopped early"),
        ("TERMINATED", 3, "completed"),
        ("ERROR", 1, "failed"),
    ],
)
def test_a_trial_that_the_scheduler_ended_is_not_called_completed(status: str, epochs_done: int, shown: str) -> None:
    trial = SimpleNamespace(trial_id="t", status=status, config={"learning_rate": 0.1})
    history = [{"epoch": epoch, "epochs": 3, "seconds": 2.0} for epoch in range(1, epochs_done + 1)]
    made = to_trial(trial, history)
    assert (made.status, made.seconds, made.learning_rate) == (shown, 2.0 * epochs_done, 0.1)


def test_a_trial_without_run_json_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokenArtifact, match=f"{tmp_path / 'abc'} has no run.json"):
        TrialLogs(manifest.load(str(tiny_dataset)), str(tmp_path)).write_epochs({"run": "abc", "history": []})
