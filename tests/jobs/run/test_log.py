"""The files that show how a run went."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.errors import BadConfig
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.networks.factory import build
from detector_core.training.loop import EpochReport
from jobs.run import tracking
from jobs.run.log import RunLog
from jobs.run.request import model_folder

REPORT = EpochReport(
    epoch=1, epochs=2, steps=3, learning_rate=0.1, train_loss=0.7, train_accuracy=0.5, val_loss=0.6, val_accuracy=0.6,
    val_auc=None, fakes_passed_at_1pct=None, best=True, seconds=1.0, images_per_s=9.0, peak_memory_bytes=1,
)  # fmt: skip


def test_epochs_whose_messages_were_lost_come_from_the_model(
    tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path
) -> None:
    history = [REPORT.to_dict(), REPORT.to_dict() | {"epoch": 2, "val_loss": 0.5}]
    log = RunLog(str(tmp_path), tiny_spec, manifest.load(str(tiny_dataset)))
    log.write_epochs(history[:1])
    log.add_lost_epochs()
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [1], "the run has not finished"
    network = build(tiny_spec.model, pretrained=False)
    training = {"complete": True, "history": history}
    artifact = Artifact(run="r", spec=tiny_spec, data={"fingerprint": "f"}, training=training)
    artifacts.save(model_folder(str(tmp_path)), network.state_dict(), artifact)
    log.add_lost_epochs()
    log.close()
    assert pd.read_csv(tmp_path / "metrics.csv")["val_loss"].tolist() == [0.6, 0.5]


def test_mlflow_gets_the_figures_of_the_same_log_and_a_resumed_run_continues(
    tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in tracking._DEFAULTS:
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    data, folder = manifest.load(str(tiny_dataset)), tmp_path / "it's a run"
    uri = tracking.check(f"mlflow:{tmp_path / 'mlruns'}")
    history = [REPORT.to_dict(), REPORT.to_dict() | {"epoch": 2, "val_loss": 0.5}]
    log = RunLog(str(folder), tiny_spec, data, uri)
    assert log.mlflow is not None
    with monkeypatch.context() as patch:
        patch.setattr(log.mlflow.client, "log_batch", _refuse)
        log.write_epochs(history[:1])
    assert "did not take the last epochs, they are sent again: the disk is full" in capsys.readouterr().err
    log.close()
    again = RunLog(str(folder), tiny_spec, data, uri)
    assert again.mlflow is not None
    assert again.mlflow.run_id == log.mlflow.run_id
    client = again.mlflow.client
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "MAX_METRICS", 3)  # fewer than one epoch has
        patch.setattr(client, "log_batch", partial(_at_most, client.log_batch))
        again.write_epochs(history)
    again.close()
    losses = client.get_metric_history(again.mlflow.run_id, "val_loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 0.6), (2, 0.5)]
    run = client.get_run(again.mlflow.run_id)
    assert (run.info.run_name, run.info.status) == ("it's a run", "KILLED")
    assert run.data.params["optim.learning_rate"] == "0.003"
    assert run.data.tags["fingerprint"] == data.fingerprint


def _at_most(log_batch: Callable[..., None], run_id: str, metrics: list[Any]) -> None:
    """As a server does that takes a limited number of metrics in a request."""
    assert len(metrics) <= tracking.MAX_METRICS
    log_batch(run_id, metrics=metrics)


def _refuse(*_: object, **__: object) -> None:
    raise MlflowException("the disk is full")


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("wandb:x", "give mlflow:URI"),
        ("mlflow:", "give mlflow:URI"),
        ("mlflow:http://me:secret@host", "mlflow:http://...: the URI has a password in it"),
    ],
)
def test_a_track_flag_that_cannot_be_used_is_named(track: str, message: str) -> None:
    with pytest.raises(BadConfig, match=re.escape(message)) as error:
        tracking.check(track)
    assert "secret" not in str(error.value)
