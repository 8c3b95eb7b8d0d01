"""A run that is interrupted anywhere and resumed is bit for bit the uninterrupted run: losses, weights, optimizer."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.training.loop import fit
from detector_core.training.step import StepReport, TrainState

REPORTS = 2 * (4 + 1)
"""Number of reports in two epochs: four steps and the end of the epoch in each."""
MEASURED = ("seconds", "images_per_s", "peak_memory_bytes")


def reproducible(report: Any) -> dict[str, Any]:
    """The fields of a report that do not depend on the speed and memory of the machine."""
    return {name: value for name, value in vars(report).items() if name not in MEASURED}


def run(spec: RunSpec, data: manifest.Manifest, stops: set[int]) -> tuple[list[dict[str, Any]], TrainState]:
    """All reports and the final state of a run that is saved and resumed after the reports numbered ``stops``."""
    state, reports = TrainState(spec, data.fingerprint), []
    for stop in [*sorted(stops), REPORTS + 1]:
        reports += [reproducible(report) for report in itertools.islice(fit(state, data), stop - len(reports))]
        if stop <= REPORTS:
            with tempfile.TemporaryDirectory() as folder:
                state.save(Path(folder))
                torch.manual_seed(stop)  # a new process has another random state
                state = TrainState.load(Path(folder), spec, data.fingerprint)
    return reports, state


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, tuple[list[dict[str, Any]], TrainState]]:
    """The uninterrupted run of each schedule, filled in as the tests need them."""
    return {}


@given(stops=st.sets(st.integers(1, REPORTS), min_size=1, max_size=3), schedule=st.sampled_from(["constant", "cosine"]))
@example(stops={4, 5, 10}, schedule="cosine")  # after the last step of an epoch, after the epoch, after the run
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_interrupted_anywhere_is_the_uninterrupted_run(
    tiny_dataset: Path,
    tiny_spec: RunSpec,
    uninterrupted: dict[str, tuple[list[dict[str, Any]], TrainState]],
    stops: set[int],
    schedule: str,
) -> None:
    data = manifest.load(str(tiny_dataset))
    spec = tiny_spec.replace({"optim.epochs": 2, "optim.schedule": schedule})
    if schedule not in uninterrupted:
        uninterrupted[schedule] = run(spec, data, set())
    (reports, state), (expected, expected_state) = run(spec, data, stops), uninterrupted[schedule]
    assert reports == expected
    assert len(reports) == REPORTS
    assert_same(state.network.state_dict(), expected_state.network.state_dict())
    assert_same(state.best_weights, expected_state.best_weights)
    moments, expected_moments = (one.optimizer.state_dict()["state"] for one in (state, expected_state))
    for number, values in expected_moments.items():
        assert_same(moments[number], values)
    assert [row["val_loss"] for row in state.progress.history] == [
        row["val_loss"] for row in expected_state.progress.history
    ]


def assert_same(found: Any, expected: Any) -> None:
    """Both have the same names, and their tensors are equal bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_steps_after_the_last_checkpoint_are_repeated_with_the_same_losses(
    tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path
) -> None:
    data = manifest.load(str(tiny_dataset))
    spec = tiny_spec.replace({"optim.epochs": 1})
    state = TrainState(spec, data.fingerprint)
    reports = fit(state, data)
    next(reports)
    state.save(tmp_path)
    lost = [report.loss for report in reports if isinstance(report, StepReport)]
    resumed = TrainState.load(tmp_path, spec, data.fingerprint)
    again = [report.loss for report in fit(resumed, data) if isinstance(report, StepReport)]
    assert again == lost
