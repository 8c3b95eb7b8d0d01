"""Runs a search under Ray Tune. A trial is a :func:`jobs.run.launch.launch` that reports each epoch to Tune.

The process of a trial only waits for the workers of its run, so it reserves no core. Only as many trials run at a time
as their workers fit on the cluster, so that no trial waits for the cores of another.
"""

import argparse
import dataclasses
import os
import time
from dataclasses import asdict
from typing import Any

import ray
import ray.tune
from ray.tune import Callback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.training import lr_search
from detector_core.training.loop import EpochReport
from detector_core.training.lr_search import Trial
from jobs.common.cli import say
from jobs.run import launch, ray_checkpoints, resource_flags
from jobs.run.board import ProgressBoard, driver_node_options
from jobs.run.progress import Watcher
from jobs.run.request import RunRequest, complete_model, write_request
from jobs.search.live_table import TrialLogs, TrialTable
from jobs.search.plan import LEARNING_RATE, SearchPlan, varied, write

TUNE_FOLDER, TRIAL_FOLDER = "tune", "trials"
TRIAL_RETRIES = 1
TRIAL_RESOURCES: dict[str, float] = {"CPU": 0, "memory": 300 * 2**20}
"""Resources of the process of a trial: memory only, so that it is scheduled by the memory it needs."""
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # RunLog writes the TensorBoard events, with the tags of jobs.train
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this job like every other
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
RELEASE_AFTER_S = 5.0
"""Until then the controller of a stopped trial may still run, and would replace workers whose cores were released."""


def run_search(plan: SearchPlan, arguments: argparse.Namespace, data: Manifest) -> dict[str, Any]:
    """Runs a search, or resumes it, and writes its files; returns the result line.

    Raises:
        InsufficientResources: this Ray cluster has too few cores or GPUs for one trial.
        TrainingFailed: every trial failed.
    """
    concurrent = _concurrent_trials(plan, arguments)
    spec = RunSpec.from_dict(plan.spec)
    request = resource_flags.requests(arguments, {plan.name: spec}, concurrent=concurrent)[0]
    request = dataclasses.replace(request, storage=storage.join(plan.folder, TRIAL_FOLDER))
    say(
        f"{plan.name}: {plan.trials} trials, {concurrent} at a time; workers per trial: {plan.workers}, "
        f"cores per worker: {request.cpus}"
    )
    board = ProgressBoard.options(name=_board_name(plan.name), **driver_node_options()).remote()  # type: ignore[attr-defined]
    with TrialLogs(data, request.storage) as logs, Watcher(board, on_epoch=logs.write_epochs):
        results = _tuner(plan, request, board, concurrent).fit()
    trials = [to_trial(result, request) for result in results]  # type: ignore[attr-defined]  # iterable, but untyped
    for trial in trials:
        launch.release_cores(board, trial.name)
    ray.kill(board)
    if not arguments.keep_checkpoints:
        for trial in trials:
            ray_checkpoints.delete_all(dataclasses.replace(request, name=trial.name))
    compute_dtype = _compute_dtype(trials, request)
    return write(plan, trials, data.name, cpus=request.cpus, compute_dtype=compute_dtype)


def _tuner(plan: SearchPlan, request: RunRequest, board: Any, concurrent: int) -> ray.tune.Tuner:
    os.environ.update(TUNE_ENVIRONMENT)
    trial = ray.tune.with_parameters(_trial, request=asdict(request), fingerprint=plan.fingerprint, board=board)
    trainable = ray.tune.with_resources(trial, TRIAL_RESOURCES)
    storage_options = launch.storage_options(plan.folder)
    experiment = storage.join(storage_options["storage_path"], TUNE_FOLDER)
    filesystem = storage_options.get("storage_filesystem")
    if ray.tune.Tuner.can_restore(experiment, storage_filesystem=filesystem):
        return ray.tune.Tuner.restore(
            experiment, trainable=trainable, resume_errored=True, storage_filesystem=filesystem
        )
    mode = lr_search.OBJECTIVES[plan.objective]
    metric = f"{lr_search.KEPT_PREFIX}{plan.objective}"
    asha = ASHAScheduler(time_attr="epoch", max_t=plan.spec["optim"]["epochs"] + 1, grace_period=1, reduction_factor=3)
    space, algorithm = _search_space(plan)
    return ray.tune.Tuner(
        trainable,
        param_space=space,
        tune_config=ray.tune.TuneConfig(
            metric=metric,
            mode=mode,
            search_alg=algorithm,
            scheduler=asha if plan.scheduler == "asha" else None,
            num_samples=plan.samples or 1,
            max_concurrent_trials=concurrent,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=ray.tune.RunConfig(
            name=TUNE_FOLDER,
            **storage_options,
            failure_config=ray.tune.FailureConfig(max_failures=TRIAL_RETRIES),
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), TrialTable(plan.objective), CoreReleaser(plan.name)],
            verbose=0,
        ),
    )


def _search_space(plan: SearchPlan) -> tuple[dict[str, Any], OptunaSearch | None]:
    """What Tune varies: the learning rate and the fields of ``plan.vary``; and Optuna, unless it is a grid."""
    if plan.learning_rates:
        values: dict[str, list[Any]] = {LEARNING_RATE: plan.learning_rates, **plan.vary}
        return {name: ray.tune.grid_search(of) for name, of in values.items()}, None
    spec = RunSpec.from_dict(plan.spec)
    used = {name: spec.flat()[name] for name in plan.vary}
    first = {name: used[name] if used[name] in values else values[0] for name, values in plan.vary.items()}
    space = {LEARNING_RATE: ray.tune.loguniform(*lr_search.loguniform_bounds())}
    space |= {name: ray.tune.choice(values) for name, values in plan.vary.items()}
    points = [{LEARNING_RATE: spec.optim.learning_rate, **first}]
    return space, OptunaSearch(seed=spec.seed, points_to_evaluate=points)


def _trial_name(trial: Any) -> str:
    """The name of a trial in Tune, on the board and on disk."""
    return str(trial.trial_id)


def _board_name(search_name: str) -> str:
    return f"board of {search_name}"


class CoreReleaser(Callback):
    """Removes the placement group of a trial that was stopped.

    Tune kills a stopped trial, together with the controller that would have removed the placement group of its workers.
    Without this the next trials would wait forever.
    """

    def __init__(self, search_name: str) -> None:
        self.search_name = search_name
        self.stopped: dict[str, float] = {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self.stopped[trial.trial_id] = time.monotonic()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self.stopped[trial.trial_id] = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        due = [name for name, since in self.stopped.items() if time.monotonic() - since > RELEASE_AFTER_S]
        for name in due:
            del self.stopped[name]
            launch.release_cores(ray.get_actor(_board_name(self.search_name)), name)


class _EpochsToTune(TuneReportCallback):
    """Passes the reports at the end of epochs to Tune; the others have no objective."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if "val_loss" in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)


def _trial(config: dict[str, Any], request: dict[str, Any], fingerprint: str, board: Any) -> None:
    """A trial: the same run as that of ``jobs.train``, with another learning rate and other settings.

    If the trial finished before the search was resumed, its history is reported to Tune again.
    """
    changes = {"optim.learning_rate": config[LEARNING_RATE], **varied(config)}
    spec = RunSpec.from_dict(request["spec"]).replace(changes)
    name = ray.tune.get_context().get_trial_id()
    run = RunRequest(**{**request, "name": name, "spec": spec.to_dict()})
    for epoch, row in enumerate(history := _finished_history(run)):
        ray.tune.report({**row, **lr_search.kept_objectives(history[: epoch + 1])})
    if not history:
        write_request(run, fingerprint)
        reporter = _EpochsToTune()  # type: ignore[no-untyped-call]
        launch.launch(run, board, callbacks=[reporter])


def _finished_history(run: RunRequest) -> list[dict[str, Any]]:
    """The history of a finished run; empty if it has not finished."""
    artifact = complete_model(run.folder)
    return artifact.training["history"] if artifact else []


def _compute_dtype(trials: list[Trial], request: RunRequest) -> str:
    """The compute dtype that the workers of the trials used; that of the spec if no trial has completed."""
    for trial in trials:
        artifact = complete_model(dataclasses.replace(request, name=trial.name).folder)
        if artifact:
            return str(artifact.training["environments"][-1]["compute_dtype"])
    return RunSpec.from_dict(request.spec).optim.compute_dtype


def _concurrent_trials(plan: SearchPlan, arguments: argparse.Namespace) -> int:
    """The number of trials that run at a time."""
    available = ray.cluster_resources()
    unit, per_trial = ("GPU", plan.workers) if arguments.gpu else ("CPU", plan.workers * (arguments.cpus or 1))
    fits = max(1, int(available.get(unit, 0) // per_trial))  # resource_flags.requests fails if not even one fits
    return min(fits, plan.trials, arguments.max_concurrent or plan.trials)


def to_trial(result: Any, request: RunRequest) -> Trial:
    """A trial as Tune recorded it; of an epoch that was reported twice, because of a crash, the later report counts."""
    run = dataclasses.replace(request, name=result.path.rstrip("/").rpartition("/")[2])
    frame = result.metrics_dataframe
    history: list[dict[str, Any]] = []
    if frame is not None and len(frame):
        frame = frame.drop_duplicates("epoch", keep="last").sort_values("epoch")
        history = frame[[field.name for field in dataclasses.fields(EpochReport)]].to_dict("records")
    error = str(result.error).strip().splitlines()[-1] if result.error else ""
    return Trial(
        name=run.name,
        learning_rate=result.config[LEARNING_RATE],
        status=lr_search.FAILED if error else lr_search.COMPLETED if _finished_history(run) else lr_search.STOPPED,
        seconds=round(sum(row["seconds"] for row in history), 1),
        history=history,
        error=error,
        settings=varied(result.config),
    )
