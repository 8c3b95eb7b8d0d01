"""Train a variant, data-parallel over Ray Train workers.

  python -m jobs.train resnet68-cutout --data data/faces --storage runs
  python -m jobs.train vggface2 --data data/faces --storage runs --init weights/vggface2.pt --workers 4 --gpu
  python -m jobs.train timm:densenet121 --data data/faces --storage runs --epochs 5
  python -m jobs.train all --data data/faces --storage runs --image-size 128 --epochs 2 --init none

VARIANT is a row of the paper's Table II: inception_resnet_v2, vggface2 or resnet68, each with -cutout or without;
timm:NAME (or timm:NAME-cutout) for any network of timm; or "all" for the six of the paper, as many at once as there
is room for. The global batch is the same whatever the number of workers.

The run's folder, STORAGE/NAME, receives model/ (the weights of the epoch with the lowest validation loss),
metrics.csv, curves.png, samples.png (what the network sees) and tensorboard/. A lost worker is replaced by itself.
After a crash of this job, or of the machine, run the same command with --resume.

The last line on stdout is one JSON object: run, model, variant, epochs, best_epoch, val_loss, val_auc, ...
"""

import argparse
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import ray

from detector_core import artifacts, backbones, manifest, storage
from detector_core.config import RunSpec
from detector_core.data import Place, check_files, plan
from detector_core.errors import BadConfig, DetectorError, Refused, TrainingFailed
from detector_core.variants import VARIANTS
from jobs import cli, launch, runspec
from jobs.board import Board, Watcher
from jobs.cluster import check_room, connect
from jobs.launch import Request
from jobs.runlog import RunLog

ALL = "all"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("train", __doc__)
    parser.add_argument("variant", metavar="VARIANT", help="what to train; see above")
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--storage", required=True, metavar="RUNS", help="folder, shared mount or URI that holds runs")
    parser.add_argument("--name", help="name of the run; the default is the variant and the time")
    parser.add_argument("--resume", action="store_true", help="go on with the run --name where it stopped")
    runspec.add_flags(parser)
    group = parser.add_argument_group("with what to train")
    group.add_argument("--workers", default="1", metavar="W", help="Ray Train workers; LEAST:MOST takes what there is")
    group.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    group.add_argument("--cpus", type=int, metavar="N", help="cores for each worker [a fair share of this Ray]")
    group.add_argument("--processes", type=int, metavar="N", help="decoding processes of each worker [by device]")
    group.add_argument("--checkpoint-every", type=int, default=100, metavar="STEPS", help="within an epoch [100]")
    group.add_argument("--keep-checkpoints", action="store_true", help="keep them when the run has finished")
    group.add_argument("--retries", type=int, default=3, metavar="N", help="lost workers that are replaced [3]")
    group.add_argument("--skip-broken", action="store_true", help="leave unreadable pictures out, and list them")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks everything that can be checked, then trains."""
    names = VARIANTS if arguments.variant == ALL else (arguments.variant,)
    if arguments.variant == ALL and arguments.spec:
        raise BadConfig(f"--spec {arguments.spec} is one variant's: it does not go with 'all'")
    specs = [runspec.from_flags(arguments, name) for name in names]
    data = manifest.load(storage.absolute(arguments.data))
    rows = {split: data.split(split) for split in ("train", "valid")}
    workers = _workers(arguments.workers)
    for spec in specs:
        backbones.check_image_size(spec.model, spec.preprocess.image_size)
        plan(len(rows["train"]), spec.optim, spec.seed, Place(workers=_most(workers)))
    for split in rows.values():
        check_files(split, data.root)
    if arguments.resume and not arguments.name:
        raise BadConfig("--resume needs --name, the run to go on with")
    runs = dict(zip(_names(arguments, specs), specs, strict=True))
    place = storage.absolute(arguments.storage)
    results = {
        run: finished(storage.join(place, run), spec, data, resume=arguments.resume) for run, spec in runs.items()
    }
    todo = {run: spec for run, spec in runs.items() if results[run] is None}
    if todo:
        with connect():
            least, most = (workers, workers) if isinstance(workers, int) else workers
            cpus = arguments.cpus or fair_share(most)
            check_room(cpus=least * cpus, gpus=least * arguments.gpu, purpose=f"training with {least} workers")
            requests = [
                Request(
                    name=run,
                    spec=spec.to_dict(),
                    data=storage.absolute(arguments.data),
                    storage=place,
                    workers=workers,
                    gpu=arguments.gpu,
                    cpus=cpus,
                    processes=_processes(arguments.processes, cpus, arguments.gpu),
                    checkpoint_every=arguments.checkpoint_every,
                    retries=arguments.retries,
                    skip_broken=arguments.skip_broken,
                )
                for run, spec in todo.items()
            ]
            results |= train(requests, data, keep_checkpoints=arguments.keep_checkpoints)
    return {"runs": list(results.values())} if arguments.variant == ALL else next(iter(results.values()))  # type: ignore[return-value]


def train(
    requests: list[Request], data: manifest.Manifest, *, keep_checkpoints: bool = False
) -> dict[str, dict[str, Any]]:
    """Trains the runs, several at once where there is room; the result of each by its name.

    Raises:
        DetectorError: what went wrong in the runs that failed; the others still end.
    """
    for request in requests:
        launch.write_request(request, data.fingerprint)
    with _watched(requests, data) as board:
        if len(requests) == 1:
            results = {requests[0].name: launch.launch(requests[0], board)}
        else:
            results = _launch_many(requests, board)
    if not keep_checkpoints:
        for request in requests:
            launch.delete_checkpoints(request)
    return results


def finished(folder: str, spec: RunSpec, data: manifest.Manifest, *, resume: bool) -> dict[str, Any] | None:
    """The result of a run that has finished; None for one that is to be trained, from its start or its checkpoint.

    Raises:
        Refused: the name is taken and ``resume`` was not asked for, or the run was started otherwise.
    """
    before = launch.read_request(folder)
    if before is None:
        if resume:
            cli.say(f"{folder}: there is no such run yet, it starts from the beginning")
        return None
    if not resume:
        raise Refused(f"{folder} exists: choose another --name, or go on with it with --resume")
    changed = runspec.differences(before["spec"], spec.to_dict())
    if before["fingerprint"] != data.fingerprint:
        changed.append(f"data set: fingerprint {before['fingerprint'][:12]} then, {data.fingerprint[:12]} now")
    if changed:
        raise Refused(f"{folder} was started otherwise ({'; '.join(changed)}): use another --name")
    model = launch.model_folder(folder)
    if not storage.exists(storage.join(model, artifacts.ARTIFACT)):
        return None
    artifact = artifacts.read(model)
    if not artifact.training["complete"]:
        return None
    cli.say(f"{folder}: already finished")
    return launch.summary(folder, artifact)


def _names(arguments: argparse.Namespace, specs: list[RunSpec]) -> list[str]:
    """The name of each run: --name, for 'all' followed by the variant; by default the variant and the time."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    variants = [spec.variant.replace(":", "-") for spec in specs]
    if arguments.variant == ALL:
        return [f"{arguments.name or f'all-{stamp}'}-{variant}" for variant in variants]
    return [arguments.name or f"{variants[0]}-{stamp}"]


def _launch_many(requests: list[Request], board: Any) -> dict[str, dict[str, Any]]:
    """Launches from tasks that hold no core, as many at once as their workers fit."""
    room = ray.cluster_resources()
    unit = "GPU" if requests[0].gpu else "CPU"
    each = requests[0].most_workers * (1 if requests[0].gpu else requests[0].cpus)
    at_once = max(1, int(room.get(unit, 0) // each))
    remote = ray.remote(num_cpus=0, max_retries=0)(_launch_remotely)
    waiting, running = list(requests), {}
    results: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            request = waiting.pop(0)
            running[remote.remote(request, board)] = request
        done, _ = ray.wait(list(running), num_returns=1)
        request = running.pop(done[0])
        outcome = ray.get(done[0])
        if isinstance(outcome, str):
            failures.append(outcome)
        else:
            results[request.name] = outcome
    if failures:
        raise TrainingFailed(f"{len(failures)} of {len(requests)} runs failed: {'; '.join(failures)}")
    return results


def _launch_remotely(request: Request, board: Any) -> dict[str, Any] | str:
    try:
        return launch.launch(request, board)
    except DetectorError as error:
        return f"{request.name}: {error}"


@contextmanager
def _watched(requests: list[Request], data: manifest.Manifest) -> Iterator[Any]:
    """A board whose messages are drawn and logged."""
    logs = {request.name: RunLog(request.folder, RunSpec.from_dict(request.spec), data) for request in requests}
    board = Board.remote()  # type: ignore[attr-defined]
    try:
        with Watcher(board, on_epoch=lambda message: logs[message["run"]].epochs(message["history"])):
            yield board
    finally:
        for log in logs.values():
            log.close()


def fair_share(workers: int) -> int:
    """Cores of each worker when this Ray's cores are dealt out evenly; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


def _workers(text: str) -> int | tuple[int, int]:
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2 or numbers[0] < 1 or numbers[-1] < numbers[0]:
        raise BadConfig(f"--workers {text}: write a number of 1 or more, or LEAST:MOST, e.g. 2 or 1:8")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _most(workers: int | tuple[int, int]) -> int:
    return workers if isinstance(workers, int) else workers[1]


def _processes(asked: int | None, cpus: int, gpu: bool) -> int:
    """On a GPU the cores decode; on a CPU they are busy with the network, and decoding is a small part."""
    if asked is not None:
        return asked
    return max(1, cpus - 1) if gpu else 0


if __name__ == "__main__":
    main()
