"""jobs.run.uploads: which checkpoints go up while training goes on, and that one waits for the other. No Ray."""

import shutil
import threading
from pathlib import Path
from typing import Any, cast

import pytest
import ray.train
from ray.train import CheckpointUploadMode

from detector_core.training.step import TrainState
from jobs.run.uploads import CheckpointUploads

ASYNC, SYNC = CheckpointUploadMode.ASYNC, CheckpointUploadMode.SYNC


class State:
    """Writes the number of the call as its checkpoint."""

    calls = 0

    def save(self, folder: Path) -> None:
        self.calls += 1
        (folder / "state").write_text(str(self.calls))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray Train was told; the folder of a checkpoint is deleted by whoever plays its upload."""
    told: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], **more: Any) -> None:
        folder = Path(more["checkpoint"].path) if more else None
        told.append({"metrics": metrics, "folder": folder, "state": folder and (folder / "state").read_text(), **more})

    monkeypatch.setattr(ray.train, "report", report)
    return told


def test_a_checkpoint_goes_up_in_the_background_and_the_next_one_waits_for_it(reports: list[dict[str, Any]]) -> None:
    uploads, state = CheckpointUploads(0, in_background=True), cast(TrainState, State())
    uploads.save(state, {"epoch": 1})
    assert (reports[0]["checkpoint_upload_mode"], reports[0]["state"]) == (ASYNC, "1")
    assert reports[0]["delete_local_checkpoint_after_upload"]
    next_one = threading.Thread(target=uploads.save, args=(state, {"epoch": 2}))
    next_one.start()
    next_one.join(0.1)
    assert next_one.is_alive()
    assert len(reports) == 1
    shutil.rmtree(reports[0]["folder"])
    next_one.join(30)
    assert [report["state"] for report in reports] == ["1", "2"]
    shutil.rmtree(reports[1]["folder"])
    uploads.wait()


@pytest.mark.parametrize(("in_background", "wait"), [(False, False), (True, True)])
def test_local_and_last_checkpoints_are_complete_when_they_are_reported(
    reports: list[dict[str, Any]], in_background: bool, wait: bool
) -> None:
    CheckpointUploads(0, in_background=in_background).save(cast(TrainState, State()), {"epoch": 1}, wait=wait)
    assert reports[0]["checkpoint_upload_mode"] == SYNC
    assert not reports[0]["folder"].exists()


def test_other_ranks_report_metrics_alone(reports: list[dict[str, Any]]) -> None:
    CheckpointUploads(1, in_background=True).save(cast(TrainState, State()), {"epoch": 1})
    assert [report["metrics"] for report in reports] == [{"epoch": 1}]
    assert reports[0]["folder"] is None
