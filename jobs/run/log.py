"""The files that show how a run went: ``metrics.csv``, TensorBoard events, learning curves, augmented samples."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.errors import BadImage
from detector_core.training import plots
from jobs.common.cli import say
from jobs.run.request import complete_model
from jobs.run.tracking import MlflowRun

_SCALARS = (
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auc", "fakes_passed_at_1pct", "images_per_s",
)  # fmt: skip


class RunLog:
    """Writes a run's files as its epochs finish, and sends the same figures to MLflow if ``track`` is its URI."""

    def __init__(self, folder: str, spec: RunSpec, data: Manifest, track: str = "") -> None:
        self.mlflow = MlflowRun(track, folder, spec, data) if track else None
        self.folder, self.spec = folder, spec
        self.title = f"{spec.variant} on {data.name}"
        self.events = storage.join(folder, "tensorboard")
        self.written = 0
        self._scratch = tempfile.TemporaryDirectory(prefix="events-") if storage.is_uri(folder) else None
        self._writer = SummaryWriter(self._scratch.name if self._scratch else self.events)
        started, session, self._ended = hparams(_hyperparameters(spec), dict.fromkeys(_SCALARS, 0.0))
        self._write(started)
        self._write(session)
        try:
            storage.write_bytes(storage.join(folder, "samples.png"), plots.contact_sheet(data, spec))
        except BadImage as error:
            say(f"samples.png was not drawn: an image of the contact sheet is broken ({error})")

    def write_epochs(self, history: list[dict[str, Any]]) -> None:
        """Updates the files to a history, the rows of all epochs so far."""
        for row in history[self.written :]:
            for name in _SCALARS:
                if row[name] is not None:
                    self._writer.add_scalar(name, row[name], row["epoch"])
        self._writer.flush()
        if self.mlflow:
            self.mlflow.write_epochs(history, _SCALARS)
        self.written = len(history)
        csv = pd.DataFrame(history).to_csv(index=False)
        storage.write_bytes(storage.join(self.folder, "metrics.csv"), csv.encode())
        for name, content in plots.learning_curves(history, self.title).items():
            storage.write_bytes(storage.join(self.folder, name), content)

    def add_lost_epochs(self) -> None:
        """Adds the epochs of a finished run whose messages were lost with a process of Ray; its model has them all."""
        artifact = complete_model(self.folder)
        if artifact and self.written < len(artifact.training["history"]):
            self.write_epochs(artifact.training["history"])

    def close(self) -> None:
        """Ends the event file and, if the run is in an object store, uploads it; ends the run in MLflow."""
        if self.mlflow:
            self.mlflow.close(complete=complete_model(self.folder) is not None)
        self._write(self._ended)
        self._writer.close()
        if self._scratch:
            for path in Path(self._scratch.name).iterdir():
                storage.write_bytes(storage.join(self.events, path.name), path.read_bytes())
            self._scratch.cleanup()

    def _write(self, summary: Any) -> None:
        self._writer._get_file_writer().add_summary(summary)


def _hyperparameters(spec: RunSpec) -> dict[str, Any]:
    """The hyperparameters that TensorBoard's HParams tab shows."""
    return {
        "variant": spec.variant,
        "learning_rate": spec.optim.learning_rate,
        "batch_size": spec.optim.batch_size,
        "image_size": spec.preprocess.image_size,
        "seed": spec.seed,
    }
