"""What the driver makes of a run's messages. Without a Ray."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from jobs.run import progress
from jobs.run.progress import Watcher

ROW = {
    "epoch": 1,
    "epochs": 2,
    "best": True,
    "train_loss": 0.5,
    "val_loss": 0.5,
    "val_accuracy": 0.5,
    "val_auc": None,
    "images_per_s": 1.0,
}


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a board holds, one message for each time it is asked."""
    monkeypatch.setattr(ray, "get", lambda asked: asked)
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    return [{"run": "a", "kind": "epoch", "history": [{**ROW, "epoch": number}]} for number in (1, 2)]


def holding(messages: list[Any]) -> Any:
    return SimpleNamespace(take=SimpleNamespace(remote=lambda: [messages.pop(0)] if messages else []))


def watch(messages: list[Any], heard: list[int], error: Exception | None = None) -> None:
    def on_epoch(message: dict[str, Any]) -> None:
        heard.append(message["history"][-1]["epoch"])
        raise OSError(f"no space left at epoch {heard[-1]}")

    with Watcher(holding(messages), on_epoch) as watcher:
        while messages:
            assert watcher.thread.is_alive()
        if error:
            raise error


def test_an_error_of_who_listens_is_raised_at_the_end_and_the_reading_goes_on(messages: list[Any]) -> None:
    heard: list[int] = []
    with pytest.raises(OSError, match="no space left at epoch 1"):
        watch(messages, heard)
    assert heard == [1, 2]


def test_an_error_of_the_run_itself_comes_first(messages: list[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        watch(messages, [], ZeroDivisionError())


@pytest.mark.parametrize(
    ("first", "waits_for"),
    [
        ([], "waiting for workers to start (1 of 2 cores are free), "),
        (
            [{"run": "a", "kind": "note", "text": "1 worker"}],
            "waiting for the next step, checkpoint or end of the run, ",
        ),
    ],
    ids=["before the first message", "after it"],
)
def test_a_driver_that_hears_nothing_says_what_it_waits_for(
    messages: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    first: list[Any],
    waits_for: str,
) -> None:
    messages[:] = first
    monkeypatch.setattr(progress, "SILENCE_S", 0.05)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    deadline, err = time.monotonic() + 30, ""
    with Watcher(holding(messages), on_epoch=lambda _: None):
        while waits_for not in err and time.monotonic() < deadline:
            time.sleep(0.02)
            err += capfd.readouterr().err
    assert waits_for in err
