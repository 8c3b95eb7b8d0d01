"""The files that show how a run went."""

from pathlib import Path

import pandas as pd

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.networks.factory import build
from detector_core.training.loop import EpochReport
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
