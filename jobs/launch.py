"""One training run under Ray Train: the only place that launches one. ``train``, ``tune`` and ``reproduce`` call it.

Every worker runs :func:`detector_core.training.fit`; rank 0 hands checkpoints to Ray. A worker that dies is replaced
and the group goes on from the last whole checkpoint. Errors that a retry cannot mend (a broken picture, a loss that
is not finite, a full disk) are written on the board, and the replaced workers stop at once.
"""

import errno
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from pyarrow import fs
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.util import get_current_placement_group

from detector_core import artifacts, checkpoint, manifest, search, storage
from detector_core.checkpoint import Progress
from detector_core.config import RunSpec
from detector_core.data import Place
from detector_core.errors import BrokenArtifact, DetectorError, TrainingFailed
from detector_core.parallel import all_gather
from detector_core.stepping import StepReport, TrainState, precision
from detector_core.training import EpochReport, fit
from jobs.board import StopSign
from jobs.cli import say

POST_EVERY_S = 0.5
CHECKPOINTS_KEPT = 2
CHECKPOINT_PREFIX = "checkpoint_"


class Stopped(Exception):
    """The run was asked to end, and has left a checkpoint to go on from."""


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
        cache: folder on each node where decoded pictures are kept and shared; empty keeps none.
    """

    name: str
    spec: dict[str, Any]
    data: str
    storage: str
    workers: int | tuple[int, int] = 1
    gpu: bool = False
    cpus: int = 1
    processes: int = 0
    checkpoint_every: int = 100
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


def launch(request: Request, board: Any, callbacks: Sequence[UserCallback] = ()) -> dict[str, Any]:
    """Trains one run to its end, or goes on with it, and writes its model folder. Blocks.

    Args:
        callbacks: told of every report of the workers; see :func:`_train` for what one holds.

    Raises:
        DetectorError: what the workers found; a model folder is still written when an epoch had finished.
        Stopped: the board was asked to stop.
        TrainingFailed: workers were lost more often than ``retries``.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={"request": asdict(request), "board": board},
        scaling_config=ScalingConfig(
            num_workers=request.workers,
            use_gpu=request.gpu,
            resources_per_worker={"CPU": request.cpus, **({"GPU": 1} if request.gpu else {})},
        ),
        run_config=RunConfig(
            name=request.name,
            **storage_of(request.storage),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            failure_config=FailureConfig(max_failures=request.retries),
            callbacks=list(callbacks),
        ),
    )
    started = time.monotonic()
    problem: DetectorError | None = None
    trace = ""
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        problem = TrainingFailed(f"{request.name}: workers failed more than {request.retries} times: {_cause(error)}")
        trace = str(error)
    reason = ray.get(board.failure.remote(request.name))
    if reason:
        problem = TrainingFailed(reason)
    elif problem:
        say(trace)
    elif ray.get(board.has_left.remote(request.name)):
        raise Stopped(f"{request.name} was stopped and has left a checkpoint")
    result = write_model(request, complete=problem is None, seconds=time.monotonic() - started)
    if problem:
        kept = f" (the best model so far is kept in {result['model']})" if result else ""
        raise TrainingFailed(f"{problem}{kept}")
    if result is None:
        raise TrainingFailed(f"{request.name} ended without a whole checkpoint in {request.folder}")
    return result


def storage_of(where: str) -> dict[str, Any]:
    """Where a run config of Ray keeps its files: an object store as we open it, with our time-outs."""
    if not storage.is_uri(where):
        return {"storage_path": where}
    filesystem, path = storage.locate(where)
    return {"storage_path": path, "storage_filesystem": filesystem}


def write_model(request: Request, *, complete: bool, seconds: float) -> dict[str, Any] | None:
    """Writes the model folder from the newest whole checkpoint; None before an epoch has finished."""
    for folder in _checkpoints(*storage.locate(request.folder)):
        with _opened(folder) as (progress, local):
            best = checkpoint.read_best(local) if progress is not None else None
            if progress is None or best is None:
                continue
            training = {
                "complete": complete,
                "epochs": progress.epoch,
                "steps": sum(row["steps"] for row in progress.history),
                "best": progress.history[progress.best_epoch],
                "history": progress.history,
                "broken_pictures": progress.broken,
                "workers": request.workers,
                "seconds": round(seconds, 1),
            }
            artifact = artifacts.Artifact(
                run=request.name,
                spec=RunSpec.from_dict(progress.spec),
                data=manifest.load(request.data).describe(),
                training=training,
            )
            return summary(request.folder, artifacts.save(model_folder(request.folder), best, artifact))
    return None


def model_folder(run_folder: str) -> str:
    """Where a run's model goes."""
    return storage.join(run_folder, artifacts.MODEL_IN_RUN)


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
        **{name: best[name] for name in ("val_loss", "val_accuracy", "val_auc", "pictures_per_s")},
        "broken_pictures": len(training["broken_pictures"]),
        "seconds": training["seconds"],
    }


def delete_checkpoints(request: Request) -> None:
    """Removes a finished run's checkpoints, several times the size of its model."""
    for folder in _checkpoints(*storage.locate(request.folder)):
        folder.filesystem.delete_dir(folder.path)


def _worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does."""
    request, board = Request(**config["request"]), config["board"]
    if ray.get(board.failure.remote(request.name)):
        return
    if ray.train.get_context().get_world_rank() == 0:
        board.hold.remote(request.name, get_current_placement_group())
    try:
        _train(request, board)
    except DetectorError as error:
        ray.get(board.give_up.remote(request.name, str(error)))
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            ray.get(board.give_up.remote(request.name, f"the disk is full under {request.storage}: free some space"))
        raise


def _train(request: Request, board: Any) -> None:
    """Reports {epoch, step, loss} within an epoch, at its end an EpochReport and the objectives at the kept epoch."""
    context = ray.train.get_context()
    place = Place(rank=context.get_world_rank(), workers=context.get_world_size())
    spec, data = RunSpec.from_dict(request.spec), manifest.load(request.data)
    device = str(ray.train.torch.get_device())
    state = _restored(request.name, board, spec, data.fingerprint, device) or TrainState(spec, data.fingerprint, device)
    _tell_places(request.name, board, state.progress)
    posted, stop = 0.0, StopSign(board, place.rank, state.device)
    how = {"processes": request.processes, "skip_broken": request.skip_broken}
    for report in fit(state, data, place, cache=Path(request.cache) if request.cache else None, **how):
        match report:
            case StepReport():
                now = time.monotonic()
                if place.rank == 0 and (now - posted > POST_EVERY_S or report.step == report.steps):
                    posted = now
                    board.post.remote({"run": request.name, "kind": "step", **asdict(report)})
                due = request.checkpoint_every and report.step % request.checkpoint_every == 0
                stopping = stop.shown()
                if (due or stopping) and report.step < report.steps:
                    _save(state, place, {"epoch": report.epoch, "step": report.step, "loss": report.loss})
                    if stopping:
                        ray.get(board.left.remote(request.name))
                        return
            case EpochReport():
                history = state.progress.history
                if place.rank == 0:
                    kind = {"precision": precision(spec.optim, state.device), "broken": len(state.progress.broken)}
                    board.post.remote({"run": request.name, "kind": "epoch", "history": history, **kind})
                _save(state, place, {**report.to_dict(), **search.kept(history)})


def _tell_places(run: str, board: Any, progress: Progress) -> None:
    """Says on which machines the workers sit, whenever a group of them begins."""
    places = all_gather(ray.util.get_node_ip_address())
    if ray.train.get_context().get_world_rank() == 0:
        workers = f"{len(places)} worker{'s' * (len(places) > 1)} on {', '.join(places)}"
        text = f"{workers}, from epoch {progress.epoch + 1}, step {progress.step + 1}"
        board.post.remote({"run": run, "kind": "note", "text": text})


def _save(state: TrainState, place: Place, metrics: dict[str, Any]) -> None:
    if place.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        state.save(Path(scratch))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(scratch))


def _restored(run: str, board: Any, spec: RunSpec, fingerprint: str, device: str) -> TrainState | None:
    """The run as its newest whole checkpoint has it; None when there is nothing to go on from."""
    latest = ray.train.get_checkpoint()
    if latest is None:
        return None
    parent = latest.path.rstrip("/").rpartition("/")[0]

    def note(text: str) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            board.post.remote({"run": run, "kind": "note", "text": text})

    for folder in _checkpoints(latest.filesystem, parent):
        with _opened(folder, note) as (progress, local):
            if progress is not None:
                return TrainState.load(local, spec, fingerprint, device)
    return None


@dataclass(frozen=True)
class _Folder:
    filesystem: fs.FileSystem
    path: str


def _checkpoints(filesystem: fs.FileSystem, run: str) -> list[_Folder]:
    """The checkpoint folders of a run, newest first."""
    infos = filesystem.get_file_info(fs.FileSelector(run, allow_not_found=True))
    found = [info.path for info in infos if info.base_name.startswith(CHECKPOINT_PREFIX) and not info.is_file]
    return [_Folder(filesystem, path) for path in sorted(found, reverse=True)]


@contextmanager
def _opened(folder: _Folder, note: Callable[[str], object] = say) -> Iterator[tuple[Progress | None, Path]]:
    """A checkpoint as a checked local folder; None for one that is damaged, with a warning."""
    with Checkpoint(path=folder.path, filesystem=folder.filesystem).as_directory() as local:
        try:
            progress = checkpoint.read(Path(local))
        except BrokenArtifact as error:
            note(f"passing over a damaged checkpoint: {error}")
            progress = None
        yield progress, Path(local)


def _cause(error: Exception) -> str:
    """The last line of a Ray error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def read_request(folder: str) -> dict[str, Any] | None:
    """The ``run.json`` of a run, or None when there is no such run."""
    where = storage.join(folder, "run.json")
    return json.loads(storage.read_bytes(where)) if storage.exists(where) else None


def write_request(request: Request, fingerprint: str) -> None:
    """Writes ``run.json``, which marks a name as taken."""
    values = {**asdict(request), "fingerprint": fingerprint}
    storage.write_bytes(storage.join(request.folder, "run.json"), json.dumps(values, indent=2).encode())
