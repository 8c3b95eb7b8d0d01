"""A run broken off anywhere, as often as you like, is the unbroken run to the last bit: losses, weights, optimizer."""

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
"""Of two epochs, each of four steps and its end."""
CLOCKS = ("seconds", "images_per_s", "peak_memory_bytes")


def steady(report: Any) -> dict[str, Any]:
    """A report without what a clock or the machine says."""
    return {name: value for name, value in vars(report).items() if name not in CLOCKS}


def run(spec: RunSpec, data: manifest.Manifest, stops: set[int]) -> tuple[list[dict[str, Any]], TrainState]:
    """All reports and the last state of a run whose process ends after the reports of these numbers, from 1."""
    state, reports = TrainState(spec, data.fingerprint), []
    for stop in [*sorted(stops), REPORTS + 1]:
        reports += [steady(report) for report in itertools.islice(fit(state, data), stop - len(reports))]
        if stop <= REPORTS:
            with tempfile.TemporaryDirectory() as folder:
                state.save(Path(folder))
                torch.manual_seed(stop)  # a new process does not know where the old one's random numbers were
                state = TrainState.load(Path(folder), spec, data.fingerprint)
    return reports, state


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[list[dict[str, Any]], TrainState]]:
    """The unbroken run of each schedule, once it was needed."""
    return {}


@given(stops=st.sets(st.integers(1, REPORTS), min_size=1, max_size=3), schedule=st.sampled_from(["constant", "cosine"]))
@example(stops={4, 5, 10}, schedule="cosine")  # the last step of an epoch, its end, the end of all
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_broken_off_anywhere_is_the_unbroken_run(
    tiny_dataset: Path,
    tiny_spec: RunSpec,
    whole: dict[str, tuple[list[dict[str, Any]], TrainState]],
    stops: set[int],
    schedule: str,
) -> None:
    data = manifest.load(str(tiny_dataset))
    spec = tiny_spec.replace({"optim.epochs": 2, "optim.schedule": schedule})
    if schedule not in whole:
        whole[schedule] = run(spec, data, set())
    (reports, state), (expected, unbroken) = run(spec, data, stops), whole[schedule]
    assert reports == expected
    assert len(reports) == REPORTS
    assert_same(state.network.state_dict(), unbroken.network.state_dict())
    assert_same(state.best_weights, unbroken.best_weights)
    moments, expected_moments = (one.optimizer.state_dict()["state"] for one in (state, unbroken))
    for number, values in expected_moments.items():
        assert_same(moments[number], values)
    assert [row["val_loss"] for row in state.progress.history] == [row["val_loss"] for row in unbroken.progress.history]


def assert_same(found: Any, expected: Any) -> None:
    """The same names with the same bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_step_that_was_not_saved_is_made_again(tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path) -> None:
    """What a process did after its last checkpoint is lost, and done again to the same end."""
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
