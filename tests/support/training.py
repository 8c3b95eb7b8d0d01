"""A training job as a process, for tests that disturb it: start it, and wait for its epochs."""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.networks.variants import spec_for
from detector_core.training.loop import EpochReport, fit
from detector_core.training.step import TrainState
from tests.support.progress import Process

EPOCHS, STEPS = 10, 12
CPUS = ("--cpus", "1")


def long_spec(folder: Path) -> Path:
    """The spec file of a run of EPOCHS short epochs, of STEPS steps each on the tiny data set."""
    spec: RunSpec = spec_for(
        "timm:test_resnet-cutout",
        {
            "model.init": "none",
            "preprocess.image_size": 32,
            "optim.epochs": EPOCHS,
            "optim.batch_size": 48 // STEPS,
            "optim.micro_batch": 2,
            "optim.learning_rate": 0.0005,
        },
    )
    path = folder / "spec.json"
    path.write_text(json.dumps(spec.to_dict()))
    return path


def arguments(spec_file: Path, dataset: Path | str, runs: Path | str, name: str, *flags: str) -> list[str]:
    """The arguments of jobs.train."""
    variant = ["timm:test_resnet-cutout", "--spec", str(spec_file)]
    return [*variant, "--data", str(dataset), "--storage", str(runs), "--name", name, *CPUS, *flags]


def start(
    spec_file: Path, dataset: Path | str, runs: Path | str, name: str, *flags: str, env: dict[str, str] | None = None
) -> Process:
    """Starts a training in a new process group."""
    command = [sys.executable, "-m", "jobs.train", *arguments(spec_file, dataset, runs, name, *flags)]
    return Process(command, start_new_session=True, env=env)


def undisturbed_losses(spec_file: Path, dataset: Path, epochs: int = EPOCHS) -> list[float]:
    """The validation loss of each epoch of a run that nothing disturbs: trained in this process, without Ray."""
    spec = RunSpec.from_dict(json.loads(spec_file.read_text())).replace({"optim.epochs": epochs})
    data = manifest.load(str(dataset))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker with one core
    try:
        reports = list(fit(TrainState(spec, data.fingerprint), data))
    finally:
        torch.set_num_threads(threads)
    return [report.val_loss for report in reports if isinstance(report, EpochReport)]


def val_losses(run: Path) -> list[float]:
    """The validation loss of each finished epoch."""
    losses: list[float] = pd.read_csv(run / "metrics.csv")["val_loss"].tolist()
    return losses


def epochs_of(run: Path) -> int:
    """The number of epochs that a run has finished."""
    return len(val_losses(run)) if (run / "metrics.csv").exists() else 0


def wait_for_epochs(process: Process, run: Path, count: int) -> None:
    """Waits until a run has finished ``count`` epochs, as long as it makes progress."""
    process.wait_until(lambda: epochs_of(run) >= count, progress=lambda: epochs_of(run))
