"""jobs.run.progress: how the driver shows the messages of a run. Starts no Ray cluster."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
import torch

from jobs.run import progress
from jobs.run.progress import StopSignal, Watcher

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
    """The unread messages of a board that hands out one at a time."""
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    return [{"run": "a", "kind": "epoch", "history": [{**ROW, "epoch": number}]} for number in (1, 2)]


def board_with(messages: list[Any]) -> Any:
    return SimpleNamespace(take=SimpleNamespace(remote=lambda: [messages.pop(0)] if messages else []))


def watch(messages: list[Any], epochs: list[int], error: Exception | None = None) -> None:
    def on_epoch(message: dict[str, Any]) -> None:
        epochs.append(message["history"][-1]["epoch"])
        raise OSError(f"no space left at epoch {epochs[-1]}")

    with Watcher(board_with(messages), on_epoch) as watcher:
        while messages:
            assert watcher.thread.is_alive()
        if error:
            raise error


def test_an_error_in_the_callback_is_raised_at_the_end_and_all_messages_are_read(messages: list[Any]) -> None:
    epochs: list[int] = []
    with pytest.raises(OSError, match="no space left at epoch 1"):
        watch(messages, epochs)
    assert epochs == [1, 2]


def test_an_error_of_the_run_takes_precedence_over_one_of_the_callback(messages: list[Any]) -> None:
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
    ids=["before the first message", "after the first message"],
)
def test_a_driver_without_messages_says_what_it_waits_for(
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
    with Watcher(board_with(messages), on_epoch=lambda _: None):
        while waits_for not in err and time.monotonic() < deadline:
            time.sleep(0.02)
            err += capfd.readouterr().err
    assert waits_for in err


def test_news_of_a_node_that_will_be_taken_back_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    notice: Any = None
    asked = []

    def get_preemption_info() -> Any:
        asked.append(notice)
        return notice

    monkeypatch.setattr(ray.train, "get_preemption_info", get_preemption_info)
    monkeypatch.setattr(ray, "wait", lambda references, **_: (references, []))
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    monkeypatch.setattr(progress, "NOTICE_EVERY_S", -1)
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    board = SimpleNamespace(is_stopping=SimpleNamespace(remote=lambda: False))
    signal = StopSignal(board, 0, torch.device("cpu"))
    seen = []
    for nodes in (None, ["a"], ["a"], ["a", "b"], ["b"]):
        notice = nodes and SimpleNamespace(preempted_node_ids=nodes)
        assert not signal.requested()
        seen.append(signal.preempted)
    assert seen == [False, True, False, True, False]
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    asked.clear()
    assert not StopSignal(board, 0, torch.device("cpu")).requested()
    assert not asked
