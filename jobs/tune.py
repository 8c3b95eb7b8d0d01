"""Search the learning rate of a variant, as the paper's Table II did, under Ray Tune.

  python -m jobs.tune resnet68-cutout --data data/faces --storage runs --name rates
  python -m jobs.tune all --data data/faces --storage runs --epochs 3 --scheduler asha --gpu
  python -m jobs.tune vggface2 --data data/faces --storage runs --search loguniform --samples 20 --workers-per-trial 4

VARIANT is one of jobs.train, or "all" for the six of Table II, one search after the other. The default space is Table
II's own rates; --search loguniform lets Optuna search around them, the variant's own rate first. Each trial is the
training that jobs.train runs, and is judged on the validation split alone, by --objective at the epoch it keeps.

STORAGE/NAME receives best.json (the spec with the best rate: jobs.train VARIANT --spec best.json), trials.csv (every
epoch of every trial, with its spec, status and time), objective.png and search.json; STORAGE/NAME/trials/ID is each
trial, with its model and TensorBoard events (make tensorboard RUNS=STORAGE). A trial that fails is tried again, then
reported, and does not end the search. After a crash of this job the same command with --resume goes on; trials that
have ended are not run again.

The last line on stdout is one JSON object: search, variant, objective, best (rate, objective, spec file), table_ii,
trials, failed; with "all" a list of these under "searches".
"""

import argparse
import datetime
from typing import Any, NoReturn

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig
from detector_core.networks.variants import VARIANTS
from detector_core.training import lr_search
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.run import resource_flags, spec_flags
from jobs.search.plan import SearchPlan, claim, verdict
from jobs.search.tuner import search_rates
from jobs.train import ALL


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("tune", __doc__)
    parser.add_argument("variant", metavar="VARIANT", help="whose rate to search; see above")
    parser.add_argument("--name", help="name of the search; the default is tune, the variant and the time")
    parser.add_argument("--resume", action="store_true", help="go on with the search --name where it stopped")
    group = parser.add_argument_group("how to search")
    group.add_argument(
        "--learning-rates",
        metavar="LR,LR,...",
        help=f"values to try [those of Table II: {','.join(map(str, lr_search.TABLE_II_LEARNING_RATES))}]",
    )
    group.add_argument("--search", choices=["grid", "loguniform"], default="grid", help="how to choose rates [grid]")
    group.add_argument("--samples", type=int, metavar="N", help="trials of --search loguniform [10]")
    group.add_argument("--objective", choices=[*lr_search.OBJECTIVES], default="val_loss", help="[val_loss]")
    group.add_argument(
        "--scheduler", choices=["asha", "none"], default="none", help="asha stops hopeless trials [none]"
    )
    group.add_argument("--max-concurrent", type=int, metavar="K", help="trials at once [as many as fit]")
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser, workers="--workers-per-trial", cache="auto")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks everything that can be checked, then searches."""
    if arguments.learning_rates and arguments.search == "loguniform":
        raise BadConfig(
            "--learning-rates lists the values to try and --search loguniform draws them: give one of the two"
        )
    if arguments.samples is not None and arguments.search == "grid":
        raise BadConfig("--samples goes with --search loguniform; a grid tries every rate once")
    for flag, value in (("--samples", arguments.samples), ("--max-concurrent", arguments.max_concurrent)):
        if value is not None and value < 1:
            raise BadConfig(f"{flag} is {value}: it must be 1 or more")
    if arguments.variant == ALL and arguments.spec:
        raise BadConfig(f"--spec {arguments.spec} is one variant's: it does not go with 'all'")
    if arguments.resume and not arguments.name:
        raise BadConfig("--resume needs --name, the search to go on with")
    if len(set(resource_flags.parse_workers(arguments.workers))) > 1:
        raise BadConfig(f"--workers-per-trial {arguments.workers}: trials that are compared have the same number")
    data = manifest.load(storage.absolute(arguments.data))
    specs = [
        spec_flags.from_flags(arguments, name)
        for name in (VARIANTS if arguments.variant == ALL else [arguments.variant])
    ]
    resource_flags.check(arguments, specs, data)
    if arguments.objective != "val_loss" and data.split("valid")["label"].nunique() < 2:
        raise BadConfig(f"--objective {arguments.objective} needs both classes in the valid split: use val_loss")
    plans = [_plan(arguments, spec, data) for spec in specs]
    for plan in plans:
        claim(plan, resume=arguments.resume)
    with connect(dashboard=True):
        results = []
        for plan in plans:
            try:
                found = search_rates(plan, arguments, data)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"the same command with --name {_base(arguments, plan)} --resume goes on"
                ) from None
            cli.say(verdict(found))
            results.append(found)
    return {"searches": results} if arguments.variant == ALL else results[0]


def _plan(arguments: argparse.Namespace, spec: RunSpec, data: Manifest) -> SearchPlan:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    variant = spec.variant.replace(":", "-")
    many = arguments.variant == ALL
    name = f"{arguments.name or f'tune-all-{stamp}'}-{variant}" if many else arguments.name or f"tune-{variant}-{stamp}"
    grid = arguments.search == "grid"
    return SearchPlan(
        name=name,
        storage=storage.absolute(arguments.storage),
        spec=spec.to_dict(),
        fingerprint=data.fingerprint,
        rates=list(lr_search.parse_learning_rates(arguments.learning_rates)) if grid else None,
        samples=None if grid else arguments.samples or 10,
        objective=arguments.objective,
        scheduler=arguments.scheduler,
        workers=resource_flags.parse_workers(arguments.workers)[0],
    )


def _base(arguments: argparse.Namespace, plan: SearchPlan) -> str:
    """--name of a search, of all six or of one."""
    variant = RunSpec.from_dict(plan.spec).variant
    return plan.name.removesuffix(f"-{variant}") if arguments.variant == ALL else plan.name


if __name__ == "__main__":
    main()
