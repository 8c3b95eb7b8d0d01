"""Train a variant, data-parallel on Ray Train workers.

  python -m jobs.train resnet68-cutout --data data/faces --storage runs
  python -m jobs.train vggface2 --data data/faces --storage runs --init weights/vggface2.pt --workers 4 --gpu
  python -m jobs.train timm:densenet121 --data data/faces --storage runs --epochs 5
  python -m jobs.train lite-frozen --data data/faces --storage runs --leave-out stylegan3
  python -m jobs.train all --data data/faces --storage runs --image-size 128 --epochs 2 --init none

VARIANT is one of the paper's six: inception_resnet_v2, vggface2 or resnet68, with or without the suffix -cutout; a
recipe, such as lite-frozen, which has no -cutout form (docs/usage.md lists them); vggface2_resnet50; timm:NAME (or
timm:NAME-cutout) for any network of timm; or "all" for the paper's six, as many at a time as fit on the cluster. The
global batch size does not depend on the number of workers.

The run's folder, RUNS/NAME (with all, RUNS/NAME-VARIANT for each), receives model/ (the weights of the epoch with the
lowest validation loss), metrics.csv, curves.png and .svg, samples.png (what the network sees) and tensorboard/. A lost
worker is replaced automatically. Ctrl-C finishes the current step and writes a checkpoint. To continue after that, or
after a crash of this job or of the machine, run the same command with --name NAME --resume.

The last line on stdout is one JSON object: run, model, variant, epochs, best_epoch, val_loss, val_auc, ...
"""

import argparse
import datetime
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import ray

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.errors import BadConfig, DetectorError, OperationRefused, TrainingFailed
from detector_core.networks.variants import VARIANTS
from detector_core.storage import os_errors
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.run import launch, ray_checkpoints, resource_flags, spec_flags
from jobs.run.board import ProgressBoard, driver_node_options
from jobs.run.log import RunLog
from jobs.run.progress import Watcher, stopped_by_signal
from jobs.run.request import RunRequest, complete_model, read_run_json, summary, write_request

ALL = "all"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("train", __doc__)
    parser.add_argument("variant", metavar="VARIANT", help="what to train; see above")
    parser.add_argument("--name", help="name of the run; the default is the variant and the time")
    parser.add_argument("--resume", action="store_true", help="continue the run --name from its last checkpoint")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="train and choose without the images of this source of the data set, which jobs.evaluate then reports "
        "apart; may be repeated",
    )
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser)
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks everything that can be checked, then trains."""
    names = VARIANTS if arguments.variant == ALL else (arguments.variant,)
    if arguments.variant == ALL and arguments.spec:
        raise BadConfig(f"--spec {arguments.spec} is for one variant: it cannot be combined with 'all'")
    specs = [spec_flags.from_flags(arguments, name) for name in names]
    data = manifest.load(storage.absolute(arguments.data)).without(arguments.leave_out)
    resource_flags.check(arguments, specs, data)
    if arguments.resume and not arguments.name:
        raise BadConfig("--resume needs --name: the run to continue")
    runs = dict(zip(_names(arguments, specs), specs, strict=True))
    root = storage.absolute(arguments.storage)
    results: dict[str, dict[str, Any] | None] = {
        run: finished_result(storage.join(root, run), spec, data, resume=arguments.resume) for run, spec in runs.items()
    }
    todo = {run: spec for run, spec in runs.items() if results[run] is None}
    if todo:
        with connect():
            requests = resource_flags.requests(arguments, todo, leave_out=data.left_out)
            try:
                results |= train(requests, data, keep_checkpoints=arguments.keep_checkpoints)
            except KeyboardInterrupt:
                flags = _resume_flags(arguments, requests)
                raise KeyboardInterrupt(f"run the same command with {flags} to continue") from None
    complete = [result for result in results.values() if result is not None]
    return {"runs": complete} if arguments.variant == ALL else complete[0]


def train(
    requests: list[RunRequest], data: manifest.Manifest, *, keep_checkpoints: bool = False
) -> dict[str, dict[str, Any]]:
    """Trains the runs, several at a time if there is room, and returns the result of each by its name.

    Raises:
        DetectorError: why runs failed; the other runs are finished first.
        KeyboardInterrupt: Ctrl-C or SIGTERM was received; each run has written a checkpoint.
    """
    for request in requests:
        write_request(request, data.fingerprint)
    with _progress_board(requests, data) as board, stopped_by_signal(board):
        if len(requests) == 1:
            try:
                results = {requests[0].name: launch.launch(requests[0], board)}
            except launch.RunStopped:
                raise KeyboardInterrupt from None
        else:
            results = _launch_many(requests, board)
    if not keep_checkpoints:
        for request in requests:
            ray_checkpoints.delete_all(request)
    return results


def finished_result(folder: str, spec: RunSpec, data: manifest.Manifest, *, resume: bool) -> dict[str, Any] | None:
    """The result of a finished run; None for one that has to be trained, from the start or from its checkpoint.

    Raises:
        OperationRefused: the name is taken and ``resume`` is off, or the run was started with different settings.
    """
    before = read_run_json(folder)
    if before is None:
        if resume:
            cli.say(f"{folder}: there is no such run yet, so it starts from the beginning")
        return None
    if not resume:
        raise OperationRefused(f"{folder} exists: choose another --name, or continue it with --resume")
    started = RunSpec.from_dict(before["spec"])  # fields that are newer than the run have their defaults
    changed = spec_flags.differences(started.to_dict(), spec.to_dict())
    if before["fingerprint"] != data.fingerprint:
        changed.append(f"data set fingerprint was {before['fingerprint'][:12]}, now {data.fingerprint[:12]}")
    if tuple(before.get("leave_out", ())) != data.left_out:
        changed.append(f"--leave-out was {_listed(before.get('leave_out', ()))}, now {_listed(data.left_out)}")
    if changed:
        raise OperationRefused(
            f"{folder} was started with different settings ({'; '.join(changed)}): use another --name"
        )
    artifact = complete_model(folder)
    if artifact is None:
        return None
    cli.say(f"{folder}: already finished")
    return summary(folder, artifact)


def is_trained(folder: str, spec: RunSpec, data: manifest.Manifest) -> bool:
    """Whether a run has finished. Raises OperationRefused if it was started with different settings."""
    return read_run_json(folder) is not None and finished_result(folder, spec, data, resume=True) is not None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _names(arguments: argparse.Namespace, specs: list[RunSpec]) -> list[str]:
    """The names of the runs: --name, followed by the variant for 'all'; by default the variant and the time."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    variants = [spec.variant.replace(":", "-") for spec in specs]
    if arguments.variant == ALL:
        return [f"{arguments.name or f'all-{stamp}'}-{variant}" for variant in variants]
    return [arguments.name or f"{variants[0]}-{stamp}"]


def _resume_flags(arguments: argparse.Namespace, requests: list[RunRequest]) -> str:
    """The flags that continue a stopped run."""
    run = requests[0].name
    variant = RunSpec.from_dict(requests[0].spec).variant
    return f"--name {run.removesuffix(f'-{variant}') if arguments.variant == ALL else run} --resume"


def _launch_many(requests: list[RunRequest], board: Any) -> dict[str, dict[str, Any]]:
    """Launches runs, as many at a time as their workers fit, from tasks that reserve no core themselves."""
    unit = "GPU" if requests[0].gpu else "CPU"
    per_run = requests[0].max_workers * (1 if requests[0].gpu else requests[0].cpus)
    concurrent = max(1, int(ray.cluster_resources().get(unit, 0) // per_run))
    remote = ray.remote(max_retries=0)(_launch_remotely).options(**driver_node_options())
    waiting = list(requests)
    running: dict[Any, RunRequest] = {}
    results: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    while waiting or running:
        while waiting and len(running) < concurrent:
            request = waiting.pop(0)
            running[remote.remote(request, board)] = request
        done, _ = ray.wait(list(running), num_returns=1)
        request = running.pop(done[0])
        outcome = ray.get(done[0])
        if isinstance(outcome, str):
            failures.append(outcome)
        elif outcome is not None:
            results[request.name] = outcome
        if ray.get(board.is_stopping.remote()):
            waiting.clear()
    if ray.get(board.is_stopping.remote()):
        raise KeyboardInterrupt
    if failures:
        raise TrainingFailed(f"{len(failures)} of {len(requests)} runs failed: {'; '.join(failures)}")
    return results


def _launch_remotely(request: RunRequest, board: Any) -> dict[str, Any] | str | None:
    try:
        return launch.launch(request, board)
    except launch.RunStopped:
        return None
    except DetectorError as error:
        return f"{request.name}: {error}"
    except OSError as error:
        return f"{request.name}: {os_errors.explain(error)}"


@contextmanager
def _progress_board(requests: list[RunRequest], data: manifest.Manifest) -> Iterator[Any]:
    """A board whose messages are shown and logged for the duration of the ``with`` block."""
    logs = {
        request.name: RunLog(
            request.folder, RunSpec.from_dict(request.spec), data.without(request.leave_out), request.track
        )
        for request in requests
    }
    board = ProgressBoard.options(**driver_node_options()).remote()  # type: ignore[attr-defined]
    try:
        with Watcher(board, on_epoch=lambda message: logs[message["run"]].write_epochs(message["history"])):
            yield board
        for log in logs.values():
            log.add_lost_epochs()
    finally:
        for log in logs.values():
            log.close()


if __name__ == "__main__":
    main()
