"""The promotion of a round: only over the version that the round started from; a failure says what makes up for it."""

import argparse
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector_core.data import manifest
from detector_core.errors import OperationRefused, StorageUnavailable
from detector_core.registry import promotion, versions
from jobs.run import round_promotion, round_watch
from tests.support.tagged import give_accepted, hashed_dataset, live_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hashed_dataset(tmp_path_factory.mktemp("promotion"), {"train": 4, "valid": 2, "test": 2})


def test_a_promotion_that_fails_names_the_command_that_makes_up_for_it(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(versions, "history", lambda _: ["live"])
    monkeypatch.setattr(versions, "stage", fail)
    data = manifest.load(str(dataset))
    command = "python -m jobs.promote r --to m"
    error: Exception = StorageUnavailable("s3://models does not answer")
    told = "the round has passed: python -m jobs.promote r --to m promotes it"
    with pytest.raises(StorageUnavailable, match=f"^s3://models does not answer; {told}$"):
        round_promotion.promote("model", "models", data, parent="live", command=command)
    error = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        round_promotion.promote("model", "models", data, parent="live", command=command)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_rollback_while_a_round_runs_is_not_undone(
    moment: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first version is live again before the promotion of the round begins, or while it copies the model."""
    models = tmp_path / "models"
    model = live_model(tmp_path / "new", dataset)
    first, second = (versions.promote(model, models, key=key) for key in ("first", "second"))
    monkeypatch.setattr(promotion, "add_runtime", lambda *_, **__: None)
    stage = versions.stage

    def roll_back_and_stage(*given: Any, **more: Any) -> str:
        versions.rollback(models)
        return stage(*given, **more)

    if moment == "before":
        versions.rollback(models)
    else:
        monkeypatch.setattr(versions, "stage", roll_back_and_stage)
    told = f"{first} is live in {models} and no longer {second}, which this round .*: COMMAND promotes it"
    with pytest.raises(OperationRefused, match=told):
        round_promotion.promote(str(model), str(models), manifest.load(str(dataset)), parent=second, command="COMMAND")
    assert versions.history(models) == [first]


def test_a_watch_goes_on_after_a_promotion_that_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_accepted(tmp_path, 1)
    outcomes: Iterator[Exception | dict[str, Any]] = iter([OperationRefused("no longer"), {"passed": True}])

    def run_round() -> dict[str, Any]:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(round_watch, "time", SimpleNamespace(sleep=lambda _: None))
    flags = argparse.Namespace(feedback=tmp_path, watch=1.0, new_tags=1, metrics=None)
    (result,) = itertools.islice(round_watch.watch(flags, run_round), 1)
    assert result == {"reason": "2 new accepted tags", "passed": True}
