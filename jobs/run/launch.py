"""Launches one training run under Ray Train, for ``jobs.train``, ``jobs.tune`` and ``jobs.reproduce``.

Every worker runs :func:`jobs.run.worker.work`, and rank 0 hands the checkpoints to Ray. A worker that dies is replaced,
and all workers continue from the last complete checkpoint. After an error that a retry cannot fix, they stop at once.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.util.placement_group import remove_placement_group

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import seen
from detector_core.data.manifest import Manifest
from detector_core.errors import DetectorError, TrainingFailed
from detector_core.networks import artifacts
from detector_core.training import checkpoint
from jobs.common.cli import say
from jobs.common.ray_internals import (
    DatasetsCallback,
    PlacementGroupCleanerCallback,
    RayTrainCallback,
    cancel_reservation,
    requester_of,
)
from jobs.run import ray_checkpoints, worker
from jobs.run.request import RunRequest, model_folder, summary

CHECKPOINTS_KEPT = 2


class Trainer(ray.train.torch.TorchTrainer):
    """Ray's trainer without two features that can end a healthy run, and without Ray Data, which no run uses."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Does nothing: Ray's handler would end the run on Ctrl-C without a checkpoint or a message."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        """Ray's callbacks without its cleaner, see :func:`release_cores`, and without that of Ray Data.

        The latter starts a process for the data sets of each group of workers, although there are none.

        The cleaner asks Ray's State API whether the controller is alive, and removes the workers' placement group if
        the answer is no. Without a dashboard it asks at 127.0.0.1:8265, or at ``RAY_API_SERVER_ADDRESS``. If another
        Ray cluster answers there, it does not know the controller, and a healthy run is ended.
        """
        callbacks: list[RayTrainCallback] = super()._create_default_callbacks()  # type: ignore[misc]  # untyped
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in callbacks if not isinstance(callback, left_out)]


class RunStopped(Exception):
    """The run was asked to stop and has written a checkpoint to continue from."""


def launch(request: RunRequest, board: Any, callbacks: Sequence[UserCallback] = ()) -> dict[str, Any]:
    """Trains a run, from the beginning or from its last checkpoint, and writes its model folder. Blocks.

    Args:
        callbacks: called with every report of the workers (see :mod:`jobs.run.worker`).

    Raises:
        DetectorError: the training failed. If an epoch had finished, the model folder is written nevertheless.
        RunStopped: the board was asked to stop.
        TrainingFailed: workers were lost more often than ``retries``.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    data = request.load_data()  # now, because it may be gone at the end of a long run
    trainer = Trainer(
        worker.work,
        train_loop_config={"request": asdict(request), "board": board},
        scaling_config=ScalingConfig(
            num_workers=request.workers,  # type: ignore[arg-type]  # a range makes the run elastic; the hint omits it
            use_gpu=request.gpu,
            resources_per_worker={"CPU": request.cpus, **({"GPU": 1} if request.gpu else {})},
        ),
        run_config=RunConfig(
            name=request.name,
            **storage_options(request.storage),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            # A node that its provider takes back counts under max_preemption_failures, which has no limit.
            failure_config=FailureConfig(max_failures=request.retries),
            callbacks=list(callbacks),  # type: ignore[arg-type]  # the hint names a base class of another package
        ),
    )
    board.add_reservation.remote(request.name, requester_of(trainer))
    started = time.monotonic()
    failure: DetectorError | None = None
    ray_message = ""
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failure = TrainingFailed(f"{request.name}: workers failed more than {request.retries} times: {_cause(error)}")
        ray_message = str(error)
    release_cores(board, request.name)
    reason = ray.get(board.failure.remote(request.name))
    if reason:
        failure = TrainingFailed(reason)
    elif failure:
        say(ray_message)
    elif ray.get(board.has_stopped.remote(request.name)):
        raise RunStopped(f"{request.name} was stopped after it wrote a checkpoint")
    result = write_model(request, data, complete=failure is None, seconds=time.monotonic() - started)
    if failure:
        kept = f" (the best model so far is in {result['model']})" if result else ""
        raise TrainingFailed(f"{failure}{kept}")
    if result is None:
        raise TrainingFailed(f"{request.name} ended without a complete checkpoint in {request.folder}")
    return result


def release_cores(board: Any, run: str) -> None:
    """Removes the placement groups and the reservations of a run, which a killed controller leaves behind."""
    groups, requesters = ray.get(board.pop_held.remote(run))
    for group in groups:
        remove_placement_group(group)
    for requester in requesters:
        cancel_reservation(requester)


def storage_options(where: str) -> dict[str, Any]:
    """The storage arguments of Ray's ``RunConfig``; an object store is opened with our time-outs."""
    if not storage.is_uri(where):
        return {"storage_path": where}
    filesystem, path = storage.locate(where)
    return {"storage_path": path, "storage_filesystem": filesystem}


def write_model(request: RunRequest, data: Manifest, *, complete: bool, seconds: float) -> dict[str, Any] | None:
    """Writes the model folder from the newest complete checkpoint; None if no epoch has finished.

    Args:
        data: the data set, without the sources that were left out.
    """
    for folder in ray_checkpoints.find(*storage.locate(request.folder)):
        with ray_checkpoints.open_checkpoint(folder) as (progress, local):
            best = checkpoint.read_best(local) if progress is not None else None
            if progress is None or best is None:
                continue
            training = {
                "complete": complete,
                "epochs": progress.epoch,
                "steps": sum(row["steps"] for row in progress.history),
                "best": progress.history[progress.best_epoch],
                "history": progress.history,
                "broken_images": progress.broken_images,
                "workers": request.workers,
                "environments": progress.environments,
                "seconds": round(seconds, 1),
            }
            artifact = artifacts.Artifact(
                run=request.name,
                spec=RunSpec.from_dict(progress.spec),
                data=data.describe(),
                training=training,
                versions={"ray": ray.__version__},
            )
            seen_file = {seen.SEEN: seen.record(data.frame)}
            return summary(request.folder, artifacts.save(model_folder(request.folder), best, artifact, seen_file))
    return None


def _cause(error: Exception) -> str:
    """The last line of a Ray error, which says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
