"""jobs.search: resuming a search needs the same plan and counts no epoch twice. Starts no Ray cluster."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.config import RunSpec
from detector_core.errors import OperationRefused
from detector_core.training import lr_search
from detector_core.training.loop import EpochReport
from jobs.run.request import RunRequest
from jobs.search.plan import SearchPlan, claim, write
from jobs.search.tuner import LEARNING_RATE, to_trial

losses = st.lists(st.floats(0.01, 9), min_size=1, max_size=8)


def epochs(losses: list[float]) -> list[dict[str, Any]]:
    """What a run with these validation losses reports to Tune."""
    fields = [field.name for field in dataclasses.fields(EpochReport)]
    rows = [
        {**dict.fromkeys(fields, 1.0), "epoch": number, "val_loss": loss, "seconds": 2.0}
        for number, loss in enumerate(losses, 1)
    ]
    return [{**row, **lr_search.kept_objectives(rows[: number + 1])} for number, row in enumerate(rows)]


def trial(rows: list[dict[str, Any]], folder: Path) -> lr_search.Trial:
    frame = pd.DataFrame(rows)
    result: Any = SimpleNamespace(
        path=f"{folder}/tune/a1", metrics_dataframe=frame, error=None, config={LEARNING_RATE: 0.1}
    )
    return to_trial(result, RunRequest(name="rates", spec={}, data="", storage=f"{folder}/trials"))


@given(losses, st.lists(st.integers(0, 8), max_size=3))
def test_a_trial_that_reported_its_epochs_again_after_crashes_equals_an_undisturbed_one(
    losses: list[float], crashes: list[int]
) -> None:
    """After each crash the trial reports from the first epoch on, whether it had finished or trains again."""
    rows, nowhere = epochs(losses), Path("/nowhere")
    reported = [row for crash in crashes for row in rows[:crash]] + rows
    disturbed, undisturbed = trial(reported, nowhere), trial(rows, nowhere)
    assert disturbed == undisturbed
    assert (len(disturbed.history), disturbed.seconds) == (len(losses), 2.0 * len(losses))
    assert disturbed.score("val_loss") == min(losses)


def plan(folder: Path, spec: RunSpec) -> SearchPlan:
    return SearchPlan(
        name="rates",
        storage=str(folder),
        spec=spec.to_dict(),
        fingerprint="f" * 64,
        learning_rates=[0.1, 0.01],
        samples=None,
        objective="val_loss",
        scheduler="asha",
        workers=1,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rates": [0.1]},
        {"learning_rates": None, "samples": 4},
        {"objective": "val_auc"},
        {"scheduler": "none"},
        {"fingerprint": "e" * 64},
        {"spec": {}},
    ],
    ids=str,
)
def test_a_search_can_be_resumed_only_with_the_plan_it_was_started_with(
    tmp_path: Path, tiny_spec: RunSpec, change: dict[str, Any]
) -> None:
    started = plan(tmp_path / "runs", tiny_spec)
    claim(started, resume=False)
    with pytest.raises(OperationRefused, match="--resume"):
        claim(started, resume=False)
    claim(started, resume=True)
    moved = (tmp_path / "runs").rename(tmp_path / "mount")
    claim(plan(moved, tiny_spec), resume=True)
    if "spec" in change:
        change = {"spec": tiny_spec.replace({"seed": 5}).to_dict()}
    with pytest.raises(OperationRefused, match="started with different settings"):
        claim(dataclasses.replace(plan(moved, tiny_spec), **change), resume=True)


def test_best_json_has_the_learning_rate_cores_and_compute_dtype_of_the_best_trial(
    tmp_path: Path, tiny_spec: RunSpec
) -> None:
    trials = [
        lr_search.Trial(name=name, learning_rate=value, status=lr_search.COMPLETED, seconds=1.0, history=epochs([loss]))
        for name, value, loss in (("a", 0.1, 0.7), ("b", 0.01, 0.6))
    ]
    result = write(plan(tmp_path, tiny_spec), trials, "tiny", cpus=2, compute_dtype="bf16")
    best = json.loads(Path(result["best"]["spec"]).read_text())
    assert best.pop("cpus_per_worker") == 2
    expected = tiny_spec.replace({"optim.learning_rate": 0.01, "optim.compute_dtype": "bf16"})
    assert RunSpec.from_dict(best) == expected
