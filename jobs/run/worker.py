"""What each Ray Train worker of a run does: the core's training loop, checkpoints, and messages to the board.

Errors that a retry cannot fix (a broken image, a loss that is not finite, a full disk) are reported to the board.
"""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util import get_current_placement_group

from detector_core import gpu, storage
from detector_core.config import RunSpec
from detector_core.data.epochs import WorkerRank
from detector_core.errors import DetectorError
from detector_core.storage import os_errors
from detector_core.training import lr_search
from detector_core.training.checkpoint import Progress
from detector_core.training.distributed import all_gather
from detector_core.training.features import FeatureReport
from detector_core.training.loop import EpochReport, fit
from detector_core.training.step import StepReport, TrainState
from jobs.run import ray_checkpoints
from jobs.run.progress import StopSignal
from jobs.run.request import RunRequest
from jobs.run.uploads import CheckpointUploads

POST_EVERY_S = 0.5
FEATURES_EVERY_S = 5.0


def work(config: dict[str, Any]) -> None:
    """Entry point of each Ray Train worker."""
    request, board = RunRequest(**config["request"]), config["board"]
    if ray.get(board.failure.remote(request.name)):
        return
    if ray.train.get_context().get_world_rank() == 0:
        board.add_placement_group.remote(request.name, get_current_placement_group())
    try:
        _train(request, board)
    except DetectorError as error:
        ray.get(board.report_failure.remote(request.name, str(error)))
        raise
    except OSError as error:
        if os_errors.is_lasting(error):
            message = f"{os_errors.explain(error)}; run the same command again, with --resume if the job has that flag"
            ray.get(board.report_failure.remote(request.name, message))
        raise


def _train(request: RunRequest, board: Any) -> None:
    """Trains, and reports to Ray Train with each checkpoint.

    A report within an epoch has ``epoch``, ``step`` and ``loss``; one at its end has the fields of EpochReport and the
    objectives of the best epoch so far.
    """
    context = ray.train.get_context()
    worker = WorkerRank(rank=context.get_world_rank(), world_size=context.get_world_size())
    spec, data = RunSpec.from_dict(request.spec), request.load_data()
    if request.gpu:
        gpu.check()
    device = str(ray.train.torch.get_device())
    state = _load_latest(request.name, board, spec, data.fingerprint, device) or TrainState(
        spec, data.fingerprint, device
    )
    _announce_nodes(request.name, board, state.progress)
    last_post, stop = 0.0, StopSignal(board, worker.rank, state.device)
    uploads = CheckpointUploads(worker.rank, in_background=storage.is_uri(request.storage))
    reports = fit(
        state,
        data,
        worker,
        processes=request.processes,
        skip_broken=request.skip_broken,
        cache=Path(request.cache) if request.cache else None,
    )
    for report in reports:
        match report:
            case StepReport():
                now = time.monotonic()
                if worker.rank == 0 and (now - last_post > POST_EVERY_S or report.step == report.steps):
                    last_post = now
                    board.post.remote({"run": request.name, "kind": "step", **asdict(report)})
                due = request.checkpoint_every and report.step % request.checkpoint_every == 0
                stopping = stop.requested()
                if (due or stopping or stop.preempted) and report.step < report.steps:
                    step_metrics = {"epoch": report.epoch, "step": report.step, "loss": report.loss}
                    uploads.save(state, step_metrics, wait=stopping or stop.preempted)
                    if stop.preempted:
                        where = f"epoch {report.epoch}, step {report.step}"
                        _announce(request.name, board, f"a node will be taken back: wrote a checkpoint at {where}")
                    if stopping:
                        ray.get(board.mark_stopped.remote(request.name))
                        return
            case FeatureReport():
                last_post = _post_features(request.name, board, report, last_post)
                if stop.requested():  # no checkpoint is needed: the computed features are in the cache
                    ray.get(board.mark_stopped.remote(request.name))
                    return
            case EpochReport():
                history = state.progress.history
                if worker.rank == 0:
                    board.post.remote({"run": request.name, "kind": "epoch", "history": history})
                metrics = {**report.to_dict(), **lr_search.kept_objectives(history)}
                uploads.save(state, metrics, wait=stop.preempted)
    uploads.wait()


def _post_features(run: str, board: Any, report: FeatureReport, last_post: float) -> float:
    """Posts how far the frozen features are, from time to time; returns when it last did."""
    now = time.monotonic()
    if now - last_post <= FEATURES_EVERY_S and report.done < report.images:
        return last_post
    _announce(run, board, f"frozen features of the {report.split} split: {report.done} of {report.images} images")
    return now


def _announce_nodes(run: str, board: Any, progress: Progress) -> None:
    """Posts the workers' nodes and the step they start from, at every (re)start."""
    nodes = all_gather(ray.util.get_node_ip_address())
    workers = f"{len(nodes)} worker{'s' * (len(nodes) > 1)} on {', '.join(nodes)}"
    _announce(run, board, f"{workers}, from epoch {progress.epoch + 1}, step {progress.step + 1}")


def _announce(run: str, board: Any, text: str) -> None:
    """Posts a note for the user, from rank 0."""
    if ray.train.get_context().get_world_rank() == 0:
        board.post.remote({"run": run, "kind": "note", "text": text})


def _load_latest(run: str, board: Any, spec: RunSpec, fingerprint: str, device: str) -> TrainState | None:
    """The state in the newest complete checkpoint of a run; None if there is none."""
    latest = ray.train.get_checkpoint()
    if latest is None:
        return None
    parent = latest.path.rstrip("/").rpartition("/")[0]

    note = partial(_announce, run, board)
    for folder in ray_checkpoints.find(latest.filesystem, parent):
        with ray_checkpoints.open_checkpoint(folder, note) as (progress, local):
            if progress is not None:
                return TrainState.load(local, spec, fingerprint, device)
    return None
