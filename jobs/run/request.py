"""A training run as jobs see it: the request that starts it, its file ``run.json``, and its model folder."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from detector_core import storage
from detector_core.data import manifest, seen
from detector_core.data.manifest import Manifest
from detector_core.errors import BadManifest
from detector_core.networks import artifacts

RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to train, on which data, where to store it, and with which resources.

    Attributes:
        spec: RunSpec as a plain dict.
        data: prepared data set, absolute path or URI.
        storage: folder or URI of runs; the run's folder is ``storage/name``.
        workers: how many, or (minimum, maximum) to use what the cluster has.
        cpus: cores per worker.
        processes: additional processes per worker that decode and augment images.
        checkpoint_every: steps between checkpoints within an epoch; 0 saves at the end of epochs only.
        retries: how often a lost worker is replaced.
        cache: folder on each node for decoded images and frozen features; empty caches nothing.
        leave_out: sources of the data set that the run does not train on.
        track: URI of an MLflow server or folder that the run is recorded in; empty for none.
    """

    name: str
    spec: dict[str, Any]
    data: str
    storage: str
    workers: int | tuple[int, int] = 1
    gpu: bool = False
    cpus: int = 1
    processes: int = 0
    checkpoint_every: int = 50
    retries: int = 3
    skip_broken: bool = False
    cache: str = ""
    leave_out: tuple[str, ...] = ()
    track: str = ""

    @property
    def folder(self) -> str:
        """The folder of the run."""
        return storage.join(self.storage, self.name)

    def load_data(self) -> Manifest:
        """The data set, without the sources that are left out. Raises BadManifest and BadConfig."""
        return manifest.load(self.data).without(self.leave_out)

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def read_run_json(folder: str) -> dict[str, Any] | None:
    """The ``run.json`` of a run; None if there is no such run."""
    where = storage.join(folder, RUN)
    if not storage.exists(where):
        return None
    values: dict[str, Any] = json.loads(storage.read_bytes(where))
    return values


def data_of_run(run_or_model: str) -> Manifest | None:
    """The data set that a run was trained on; None if ``run.json`` names none, or it is gone or has changed.

    Args:
        run_or_model: the folder of a run, or of its model.
    """
    folder = artifacts.find(run_or_model)
    for run in (storage.absolute(run_or_model), folder.removesuffix(f"/{artifacts.MODEL_IN_RUN}")):
        try:
            values = read_run_json(run)
            data = manifest.load(values["data"]) if values else None
        except (ValueError, KeyError, BadManifest):
            return None
        if data:
            return data if data.fingerprint == artifacts.read(folder).data["fingerprint"] else None
    return None


def trained_on(run_or_model: str, own: Manifest | None = None) -> Manifest | None:
    """The data set that a run was trained on, without the sources that it left out; None as of :func:`data_of_run`.

    Args:
        own: the whole data set, if it is loaded already.
    """
    data = own or data_of_run(run_or_model)
    return data.without(artifacts.read(artifacts.find(run_or_model)).data.get("left_out", ())) if data else None


def seen_by(run_or_model: str, own: Manifest | None = None) -> pd.DataFrame | None:
    """The hashes of what a model was trained and chosen on; None if nothing tells.

    A model folder made by an older version has none: its data set tells, if it is still there.

    Args:
        own: the data set that the model was trained on, if it is loaded already.
    """
    folder = artifacts.find(run_or_model)
    known = seen.read(folder)
    if known is not None:
        return known
    data = trained_on(run_or_model, own)
    return seen.of_images(data.frame) if data else None


def write_request(request: RunRequest, fingerprint: str) -> None:
    """Writes ``run.json``, which reserves the name of the run."""
    values = {**asdict(request), "fingerprint": fingerprint}
    storage.write_bytes(storage.join(request.folder, RUN), json.dumps(values, indent=2).encode())


def model_folder(run_folder: str) -> str:
    """The folder of a run's model."""
    return storage.join(run_folder, artifacts.MODEL_IN_RUN)


def complete_model(run_folder: str) -> artifacts.Artifact | None:
    """The artifact of a finished run; None if the run has not finished."""
    model = model_folder(run_folder)
    if not storage.exists(storage.join(model, artifacts.ARTIFACT)):
        return None
    artifact = artifacts.read(model)
    return artifact if artifact.training["complete"] else None


def summary(run_folder: str, artifact: artifacts.Artifact) -> dict[str, Any]:
    """What a job prints about a finished run."""
    training, best = artifact.training, artifact.training["best"]
    return {
        "run": run_folder,
        "model": model_folder(run_folder),
        "variant": artifact.spec.variant,
        "epochs": training["epochs"],
        "steps": training["steps"],
        "best_epoch": best["epoch"],
        **{name: best[name] for name in ("val_loss", "val_accuracy", "val_auc", "images_per_s")},
        "broken_images": len(training["broken_images"]),
        "seconds": training["seconds"],
    }
