"""The flags that say with what to train, the checks before Ray starts, and the requests they make of specs."""

import argparse
import math
import os
import tempfile
from pathlib import Path

import ray

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.loading import WorkerRank, check_files, plan
from detector_core.errors import BadConfig
from detector_core.networks import factory
from jobs.common.cli import say
from jobs.common.cluster import check_room
from jobs.run import spec_flags
from jobs.run.request import RunRequest

FEW_STEPS = 100
CACHE = Path(tempfile.gettempdir()) / f"deepfake-detector-cache-{os.getuid()}"


def add_flags(parser: argparse.ArgumentParser, *, workers: str = "--workers", cache: str = "none") -> None:
    """Adds --data, --storage, --workers (or what a job calls it) and what goes with them."""
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--storage", required=True, metavar="RUNS", help="folder, shared mount or URI that holds runs")
    group = parser.add_argument_group("with what to train")
    group.add_argument(
        workers, default="1", dest="workers", metavar="W", help="Ray Train workers; LEAST:MOST takes what there is"
    )
    group.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    group.add_argument("--cpus", type=int, metavar="N", help="cores for each worker [a fair share of this Ray]")
    group.add_argument("--processes", type=int, metavar="N", help="decoding processes of each worker [by device]")
    group.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS", help="within an epoch [50]")
    group.add_argument("--keep-checkpoints", action="store_true", help="keep them when the run has finished")
    group.add_argument("--retries", type=int, default=3, metavar="N", help="lost workers that are replaced [3]")
    group.add_argument("--skip-broken", action="store_true", help="leave unreadable images out, and list them")
    group.add_argument(
        "--cache",
        default=cache,
        metavar="FOLDER",
        help=f"where each node keeps decoded images for every run on it; none decodes at every use; auto is {CACHE}; "
        f"may be deleted between runs [{cache}]",
    )


def check(arguments: argparse.Namespace, specs: list[RunSpec], data: manifest.Manifest) -> None:
    """All that can be checked before Ray starts.

    Raises:
        BadConfig: an image too small for a network, more workers than images of a batch, a bad --workers.
        BadData: images of the data set are gone.
    """
    rows = {split: data.split(split) for split in ("train", "valid")}
    _, most = parse_workers(arguments.workers)
    for model, size in dict.fromkeys((spec.model, spec.preprocess.image_size) for spec in specs):
        factory.check_image_size(model, size)
    for spec in {spec.variant: spec for spec in specs}.values():  # seeds change nothing here
        plan(len(rows["train"]), spec.optim, spec.seed, WorkerRank(world_size=most))
        _say_if_few_steps(len(rows["train"]), spec)
    for split in rows.values():
        check_files(split, data.root)


def _say_if_few_steps(images: int, spec: RunSpec) -> None:
    batch, epochs = spec.optim.batch_size, spec.optim.epochs
    steps = math.ceil(images / batch)
    if steps * epochs < FEW_STEPS <= images * epochs:
        each = f"{steps} step{'s' * (steps > 1)} an epoch, {steps * epochs} in all"
        say(
            f"{spec.variant}: {images:,} images in batches of {batch:,} are {each}, which teach little: "
            f"a smaller --batch-size and --micro-batch make more of them"
        )


def requests(arguments: argparse.Namespace, runs: dict[str, RunSpec], *, at_once: int = 1) -> list[RunRequest]:
    """What to launch, a request a run. Call inside :func:`jobs.common.cluster.connect`.

    Args:
        at_once: runs that share this Ray's cores when --cpus does not say how many each worker has.

    Raises:
        InsufficientResources: this Ray has fewer cores or GPUs than one run needs.
    """
    least, most = parse_workers(arguments.workers)
    cpus = arguments.cpus or _recorded_cpus(arguments.spec, most * at_once) or fair_share(most * at_once)
    check_room(cpus=least * cpus, gpus=least * arguments.gpu, purpose=f"training with {least} workers")
    return [
        RunRequest(
            name=name,
            spec=spec.to_dict(),
            data=storage.absolute(arguments.data),
            storage=storage.absolute(arguments.storage),
            workers=least if least == most else (least, most),
            gpu=arguments.gpu,
            cpus=cpus,
            processes=_processes(arguments.processes, cpus, arguments.gpu),
            checkpoint_every=arguments.checkpoint_every,
            retries=arguments.retries,
            skip_broken=arguments.skip_broken,
            cache=_cache(arguments.cache),
        )
        for name, spec in runs.items()
    ]


def _recorded_cpus(spec_file: str | None, workers: int) -> int | None:
    """The cores per worker that a spec file records, if this Ray has as many; None otherwise, with a warning."""
    cpus, available = spec_flags.recorded_cpus(spec_file), fair_share(workers)
    if cpus is None or cpus <= available:
        return cpus
    say(
        f"--spec {spec_file} was found with {cpus} cores per worker, and this Ray has {available} for each: "
        f"the result may differ from the trial's"
    )
    return None


def fair_share(workers: int) -> int:
    """Cores of each worker when this Ray's cores are dealt out evenly; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


def parse_workers(text: str) -> tuple[int, int]:
    """--workers as (least, most)."""
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2 or numbers[0] < 1 or numbers[-1] < numbers[0]:
        raise BadConfig(f"--workers {text}: write a number of 1 or more, or LEAST:MOST, e.g. 2 or 1:8")
    return numbers[0], numbers[-1]


def _cache(asked: str) -> str:
    return "" if asked == "none" else str(CACHE if asked == "auto" else Path(asked).absolute())


def _processes(asked: int | None, cpus: int, gpu: bool) -> int:
    """On a GPU the cores decode; on a CPU they are busy with the network, and decoding is a small part."""
    if asked is not None:
        return asked
    return max(1, cpus - 1) if gpu else 0
