"""jobs.run.round_watch: what may pass by itself is tried again at the next look, anything else with other tags."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from detector_core.errors import (
    BadData,
    ClusterLost,
    DetectorError,
    InsufficientResources,
    OperationRefused,
    StorageUnavailable,
)
from jobs.run import round_watch


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a watch until its first result, or for ten looks; returns the number of looks, and of rounds begun.

    The arguments are what fails at the first look: reading the tags, reading the drift, or running the round.
    """

    def run(
        tags: DetectorError | None = None, drift: DetectorError | None = None, round_: DetectorError | None = None
    ) -> tuple[int, int]:
        looks, rounds = [1], [0]

        def fail(error: DetectorError | None) -> None:
            if error and looks[0] == 1:
                raise error

        def new_tags(_: object) -> set[str]:
            fail(tags)
            return {"a"}

        def read(_: object) -> float:
            fail(drift)
            return 0.3

        def run_round() -> dict[str, Any]:
            rounds[0] += 1
            fail(round_)
            return {"passed": True}

        def sleep(_: object) -> None:
            looks[0] += 1
            if looks[0] == 10:
                raise KeyboardInterrupt

        monkeypatch.setattr(round_watch.round_log, "new_tags", new_tags)
        monkeypatch.setattr(round_watch.drift_metric, "read", read)
        monkeypatch.setattr(round_watch, "time", SimpleNamespace(sleep=sleep))
        arguments: Any = SimpleNamespace(watch=5.0, new_tags=30, metrics="http://a", feedback="feedback")
        with contextlib.suppress(KeyboardInterrupt):
            assert next(round_watch.watch(arguments, run_round))["passed"]
        return looks[0], rounds[0]

    return run


def test_a_look_that_fails_is_repeated(watched: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(drift=StorageUnavailable("--metrics http://a cannot be read")) == (2, 1)
    assert "error: --metrics http://a cannot be read; the next look is in 5 s" in capsys.readouterr().err
    assert watched(tags=BadData("round.json is not the record of a round")) == (2, 1)


@pytest.mark.parametrize("kind", [ClusterLost, InsufficientResources, OperationRefused, StorageUnavailable])
def test_a_round_that_fails_for_a_time_is_run_at_the_next_look(
    watched: Any, capsys: pytest.CaptureFixture[str], kind: type[DetectorError]
) -> None:
    assert watched(round_=kind("another round is running")) == (2, 2)
    assert "error: another round is running; the next look is in 5 s" in capsys.readouterr().err


def test_a_round_that_cannot_run_waits_for_other_tags(watched: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(round_=BadData("too few tags")) == (10, 1)
    assert "error: too few tags; waiting for other tags" in capsys.readouterr().err
