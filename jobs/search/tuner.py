"""One search under Ray Tune: ``tune`` calls it. A trial is a :func:`jobs.run.launch.launch`, told to Tune epoch by
epoch.

A trial's own process takes no core: it waits for its workers, which take all of them. No more trials run at once than
their workers fit, so none waits for another's cores.
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
from jobs.run import checkpoints, launch, resource_flags
from jobs.run.progress import ProgressBoard, Watcher, driver_node_options
from jobs.run.request import RunRequest, complete_model, write_request
from jobs.search.live_table import TrialLogs, TrialTable
from jobs.search.plan import SearchPlan, write

TUNE_FOLDER, TRIAL_FOLDER = "tune", "trials"
TRIAL_RETRIES = 1
# A trial's process is placed by the memory that it holds, never by cores.
DRIVER: dict[str, float] = {"CPU": 0, "memory": 300 * 2**20}
RATE = "learning_rate"
STOPPED_WITHIN_S = 5.0
"""By then the controller of a stopped trial is gone: it would replace workers whose group was taken too early."""


def search_rates(plan: SearchPlan, arguments: argparse.Namespace, data: Manifest) -> dict[str, Any]:
    """Runs a search to its end, or goes on with it, and writes its files; returns the result line.

    Raises:
        InsufficientResources: not even one trial fits this Ray.
        TrainingFailed: every trial failed.
    """
    at_once = _room(plan, arguments)
    spec = RunSpec.from_dict(plan.spec)
    request = resource_flags.requests(arguments, {plan.name: spec}, at_once=at_once)[0]
    request = dataclasses.replace(request, storage=storage.join(plan.folder, TRIAL_FOLDER))
    say(f"{plan.name}: {plan.trials} trials, {at_once} at once, {plan.workers} workers of {request.cpus} cores each")
    board = ProgressBoard.options(name=_board(plan.name), **driver_node_options()).remote()  # type: ignore[attr-defined]
    with TrialLogs(data, request.storage) as logs, Watcher(board, on_epoch=logs.epochs):
        results = _tuner(plan, request, board, at_once).fit()
    trials = [collected(result, request) for result in results]  # type: ignore[attr-defined]  # iterable, but untyped
    for trial in trials:
        launch.release_cores(board, trial.name)
    ray.kill(board)
    if not arguments.keep_checkpoints:
        for trial in trials:
            checkpoints.delete(dataclasses.replace(request, name=trial.name))
    compute_dtype = _compute_dtype(trials, request)
    return write(plan, trials, data.name, cpus=request.cpus, compute_dtype=compute_dtype)


def _tuner(plan: SearchPlan, request: RunRequest, board: Any, at_once: int) -> ray.tune.Tuner:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard events are ours: the tags of jobs.train
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the job as it ends every other
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "2"
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    trial = ray.tune.with_parameters(_trial, request=asdict(request), fingerprint=plan.fingerprint, board=board)
    trainable = ray.tune.with_resources(trial, DRIVER)
    kept = launch.storage_of(plan.folder)
    experiment, where = storage.join(kept["storage_path"], TUNE_FOLDER), kept.get("storage_filesystem")
    if ray.tune.Tuner.can_restore(experiment, storage_filesystem=where):
        return ray.tune.Tuner.restore(experiment, trainable=trainable, resume_errored=True, storage_filesystem=where)
    mode = lr_search.OBJECTIVES[plan.objective]
    metric = f"{lr_search.KEPT_PREFIX}{plan.objective}"
    seed = plan.spec["seed"]
    asha = ASHAScheduler(time_attr="epoch", max_t=plan.spec["optim"]["epochs"] + 1, grace_period=1, reduction_factor=3)
    if plan.rates:
        space, algorithm = {RATE: ray.tune.grid_search(plan.rates)}, None
    else:
        first = [{RATE: plan.spec["optim"][RATE]}]
        space = {RATE: ray.tune.loguniform(*lr_search.loguniform_bounds())}
        algorithm = OptunaSearch(seed=seed, points_to_evaluate=first)
    return ray.tune.Tuner(
        trainable,
        param_space=space,
        tune_config=ray.tune.TuneConfig(
            metric=metric,
            mode=mode,
            search_alg=algorithm,
            scheduler=asha if plan.scheduler == "asha" else None,
            num_samples=plan.samples or 1,
            max_concurrent_trials=at_once,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=ray.tune.RunConfig(
            name=TUNE_FOLDER,
            **kept,
            failure_config=ray.tune.FailureConfig(max_failures=TRIAL_RETRIES),
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), TrialTable(plan.objective), CoreReleaser(plan.name)],
            verbose=0,
        ),
    )


def _name(trial: Any) -> str:
    """A trial's name, in Tune, on the board and on disk."""
    return str(trial.trial_id)


def _board(search_name: str) -> str:
    return f"board of {search_name}"


class CoreReleaser(Callback):
    """Takes back the placement group of a trial that was stopped.

    Tune kills a stopped trial, and with it the controller that would have removed the group of its workers: the next
    trials would wait for ever.
    """

    def __init__(self, search_name: str) -> None:
        self.search_name = search_name
        self.stopped: dict[str, float] = {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self.stopped[trial.trial_id] = time.monotonic()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self.stopped[trial.trial_id] = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        due = [name for name, since in self.stopped.items() if time.monotonic() - since > STOPPED_WITHIN_S]
        for name in due:
            del self.stopped[name]
            launch.release_cores(ray.get_actor(_board(self.search_name)), name)


class _EpochsToTune(TuneReportCallback):
    """Tells Tune the reports at the end of epochs, the only ones with an objective."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if "val_loss" in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)


def _trial(config: dict[str, Any], request: dict[str, Any], fingerprint: str, board: Any) -> None:
    """A trial: the run of ``jobs.train`` with another rate. One that ended before tells Tune its history again."""
    spec = RunSpec.from_dict(request["spec"]).replace({"optim.learning_rate": config[RATE]})
    name = ray.tune.get_context().get_trial_id()
    run = RunRequest(**{**request, "name": name, "spec": spec.to_dict()})
    for epoch, row in enumerate(history := _ended(run)):
        ray.tune.report({**row, **lr_search.kept_objectives(history[: epoch + 1])})
    if not history:
        write_request(run, fingerprint)
        to_tune = _EpochsToTune()  # type: ignore[no-untyped-call]
        launch.launch(run, board, callbacks=[to_tune])


def _ended(run: RunRequest) -> list[dict[str, Any]]:
    """The history of a run that has its whole model; empty for one that has not."""
    artifact = complete_model(run.folder)
    return artifact.training["history"] if artifact else []


def _compute_dtype(trials: list[Trial], request: RunRequest) -> str:
    """The compute dtype that the workers of the trials resolved; the spec's own if no trial has completed."""
    for trial in trials:
        artifact = complete_model(dataclasses.replace(request, name=trial.name).folder)
        if artifact:
            return str(artifact.training["environments"][-1]["compute_dtype"])
    return RunSpec.from_dict(request.spec).optim.compute_dtype


def _room(plan: SearchPlan, arguments: argparse.Namespace) -> int:
    """How many trials run at once."""
    has = ray.cluster_resources()
    unit, each = ("GPU", plan.workers) if arguments.gpu else ("CPU", plan.workers * (arguments.cpus or 1))
    fits = max(1, int(has.get(unit, 0) // each))  # resources.requests says it when not even one fits
    return min(fits, plan.trials, arguments.max_concurrent or plan.trials)


def collected(result: Any, request: RunRequest) -> Trial:
    """A trial as Tune recorded it; one that was told twice, after a crash, counts the later time."""
    run = dataclasses.replace(request, name=result.path.rstrip("/").rpartition("/")[2])
    frame = result.metrics_dataframe
    history: list[dict[str, Any]] = []
    if frame is not None and len(frame):
        frame = frame.drop_duplicates("epoch", keep="last").sort_values("epoch")
        history = frame[[field.name for field in dataclasses.fields(EpochReport)]].to_dict("records")
    failed = str(result.error).strip().splitlines()[-1] if result.error else ""
    return Trial(
        name=run.name,
        learning_rate=result.config[RATE],
        status=lr_search.FAILED if failed else lr_search.COMPLETED if _ended(run) else lr_search.STOPPED,
        seconds=round(sum(row["seconds"] for row in history), 1),
        history=history,
        error=failed,
    )
