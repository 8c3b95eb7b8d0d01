"""The flags for data, storage and resources of a training, the checks before Ray starts, and the resulting requests."""

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd
import ray

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.epochs import EpochPlan, WorkerRank, plan
from detector_core.data.loading import check_files
from detector_core.errors import BadConfig
from detector_core.networks import factory
from detector_core.networks.catalog import find_network
from jobs.common.cli import say
from jobs.common.cluster import check_resources
from jobs.run import spec_flags, tracking
from jobs.run.request import RunRequest

FEW_STEPS = 100
CACHE = Path(tempfile.gettempdir()) / f"deepfake-detector-cache-{os.getuid()}"


def add_flags(parser: argparse.ArgumentParser, *, workers: str = "--workers", cache: str | None = None) -> None:
    """Adds --data, --storage, --workers (or the name that a job gives it) and the other flags about resources."""
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--storage", required=True, metavar="RUNS", help="folder, shared mount or URI for runs")
    _add_track(parser)
    group = parser.add_argument_group("resources")
    group.add_argument(
        workers,
        default="1",
        dest="workers",
        metavar="W",
        help="Ray Train workers" + ("; MIN:MAX uses what is available" if workers == "--workers" else "") + " [1]",
    )
    group.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    group.add_argument("--cpus", type=int, metavar="N", help="cores per worker [an equal share of all cores]")
    group.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="additional decoding processes per worker [with --gpu one less than --cpus, else 0]",
    )
    group.add_argument(
        "--checkpoint-every",
        type=int,
        default=50,
        metavar="STEPS",
        help="steps between checkpoints within an epoch; 0 writes one per epoch only [50]",
    )
    group.add_argument(
        "--keep-checkpoints", action="store_true", help="do not delete checkpoints when the run has finished"
    )
    group.add_argument("--retries", type=int, default=3, metavar="N", help="how often a lost worker is replaced [3]")
    group.add_argument(
        "--skip-broken", action="store_true", help="leave out unreadable images, and list them in the model folder"
    )
    group.add_argument(
        "--cache",
        default=cache,
        metavar="FOLDER",
        help=f"folder on each node that caches decoded images and frozen features across runs: a path, auto "
        f"({CACHE}) or none, which caches nothing; it may be deleted between runs "
        f"[{cache or 'none, but auto for recipes of frozen features alone'}]",
    )


def _add_track(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--track",
        default="",
        metavar="mlflow:URI",
        help="also record the runs in MLflow, by the log that writes TensorBoard events: mlflow:http://HOST:PORT or "
        "mlflow:FOLDER; needs the extra mlflow (uv sync --extra mlflow)",
    )


def check(arguments: argparse.Namespace, specs: list[RunSpec], data: manifest.Manifest) -> None:
    """Checks everything that can be checked before Ray starts.

    Raises:
        BadConfig: a network does not take the images, a batch has fewer images than workers, or --workers is
            malformed.
        BadData: images of the data set are missing.
    """
    tracking.check(arguments.track)
    rows = {split: data.split(split) for split in ("train", "valid")}
    _, maximum = parse_workers(arguments.workers)
    for spec in {spec.variant: spec for spec in specs}.values():  # runs that differ in the seed need one check
        factory.check(spec)
        epoch_plan = plan(len(rows["train"]), spec.optim, spec.seed, WorkerRank(world_size=maximum))
        _say_if_few_steps(epoch_plan, spec)
        _say_if_enlarged(rows["train"], spec)
    for split in rows.values():
        check_files(split, data.root)


def _say_if_few_steps(epoch_plan: EpochPlan, spec: RunSpec) -> None:
    images, steps = epoch_plan.images, epoch_plan.steps
    batch, epochs = spec.optim.batch_size, spec.optim.epochs
    if steps * epochs < FEW_STEPS <= images * epochs:
        count = f"{steps} step{'s' * (steps > 1)} per epoch, {steps * epochs} in total"
        say(
            f"{spec.variant}: {images:,} images in batches of {batch:,} are only {count}: "
            f"a smaller --batch-size and --micro-batch give more steps"
        )


def _say_if_enlarged(rows: pd.DataFrame, spec: RunSpec) -> None:
    size = spec.preprocess.image_size
    small = rows[rows[["width", "height"]].min(axis=1) < size]
    if len(small):
        say(
            f"{spec.variant}: {len(small):,} of {len(rows):,} training images are smaller than the {size} px that the "
            f"network takes (such as {small['path'].iloc[0]}): they are enlarged, and have lost the finest traces"
        )


def requests(
    arguments: argparse.Namespace, runs: dict[str, RunSpec], *, concurrent: int = 1, leave_out: tuple[str, ...] = ()
) -> list[RunRequest]:
    """The requests that launch runs, given by name. Call inside :func:`jobs.common.cluster.connect`.

    Args:
        concurrent: number of runs at a time, which share the cores of this Ray cluster unless --cpus is given.
        leave_out: see :attr:`RunRequest.leave_out`.

    Raises:
        InsufficientResources: this Ray cluster has fewer cores or GPUs than one run needs.
    """
    minimum, maximum = parse_workers(arguments.workers)
    cpus = arguments.cpus or _recorded_cpus(arguments.spec, maximum * concurrent) or fair_share(maximum * concurrent)
    check_resources(cpus=minimum * cpus, gpus=minimum * arguments.gpu, purpose=f"training with {minimum} workers")
    return [
        RunRequest(
            name=name,
            spec=spec.to_dict(),
            data=storage.absolute(arguments.data),
            storage=storage.absolute(arguments.storage),
            workers=minimum if minimum == maximum else (minimum, maximum),
            gpu=arguments.gpu,
            cpus=cpus,
            processes=_processes(arguments.processes, cpus, arguments.gpu),
            checkpoint_every=arguments.checkpoint_every,
            retries=arguments.retries,
            skip_broken=arguments.skip_broken,
            cache=cache_folder(arguments.cache, spec),
            leave_out=leave_out,
            track=tracking.check(arguments.track),
        )
        for name, spec in runs.items()
    ]


def _recorded_cpus(spec_file: str | None, workers: int) -> int | None:
    """The cores per worker that a spec file records; None, with a warning, if this Ray cluster has fewer."""
    cpus, available = spec_flags.recorded_cpus(spec_file), fair_share(workers)
    if cpus is None or cpus <= available:
        return cpus
    say(
        f"the trials behind --spec {spec_file} had {cpus} cores per worker, and this Ray cluster has {available}: "
        f"the result may differ from the trial's"
    )
    return None


def fair_share(workers: int) -> int:
    """The cores per worker if all workers get the same number; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


def parse_workers(text: str) -> tuple[int, int]:
    """Parses --workers as (minimum, maximum)."""
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2 or numbers[0] < 1 or numbers[-1] < numbers[0]:
        raise BadConfig(f"--workers {text}: give a number of 1 or more, or MIN:MAX, e.g. 2 or 1:8")
    return numbers[0], numbers[-1]


def cache_folder(folder: str | None, spec: RunSpec) -> str:
    """--cache as a path, empty for none. By default features are kept, which are small, but no decoded images."""
    if folder is None:
        folder = "auto" if find_network(spec.model.architecture).features_only else "none"
    return "" if folder == "none" else str(CACHE if folder == "auto" else Path(folder).absolute())


def _processes(requested: int | None, cpus: int, gpu: bool) -> int:
    """With a GPU the cores are free to decode; without one they compute the network, and decoding is a small part."""
    if requested is not None:
        return requested
    return max(1, cpus - 1) if gpu else 0
