"""What a run is to a job: the request that starts it, ``run.json``, and where its model goes."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from detector_core import storage
from detector_core.networks import artifacts


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run: what to train, on which data, where, and with what.

    Attributes:
        spec: RunSpec as a plain dict.
        data: prepared data set, absolute path or URI.
        storage: folder or URI of runs; the run's folder is ``storage/name``.
        workers: how many, or (least, most) to take what the cluster has.
        cpus: cores of each worker.
        processes: further processes of each worker that decode and augment.
        checkpoint_every: steps between checkpoints within an epoch; 0 saves at the end of epochs only.
        retries: how often a lost worker is replaced.
        cache: folder on each node where decoded images are kept and shared; empty keeps none.
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

    @property
    def folder(self) -> str:
        """The run's folder."""
        return storage.join(self.storage, self.name)

    @property
    def most_workers(self) -> int:
        """The largest number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def read_request(folder: str) -> dict[str, Any] | None:
    """The ``run.json`` of a run, or None when there is no such run."""
    where = storage.join(folder, "run.json")
    return json.loads(storage.read_bytes(where)) if storage.exists(where) else None


def write_request(request: Request, fingerprint: str) -> None:
    """Writes ``run.json``, which marks a name as taken."""
    values = {**asdict(request), "fingerprint": fingerprint}
    storage.write_bytes(storage.join(request.folder, "run.json"), json.dumps(values, indent=2).encode())


def model_folder(run_folder: str) -> str:
    """Where a run's model goes."""
    return storage.join(run_folder, artifacts.MODEL_IN_RUN)


def whole_model(run_folder: str) -> artifacts.Artifact | None:
    """What a run that has finished says of its model; None for one that has not."""
    model = model_folder(run_folder)
    if not storage.exists(storage.join(model, artifacts.ARTIFACT)):
        return None
    artifact = artifacts.read(model)
    return artifact if artifact.training["complete"] else None


def summary(run_folder: str, artifact: artifacts.Artifact) -> dict[str, Any]:
    """A finished run as a job's result."""
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
