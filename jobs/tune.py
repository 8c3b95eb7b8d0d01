"""Search for the best learning rate of a variant, or more of its settings, with Ray Tune.

  python -m jobs.tune resnet68-cutout --data data/faces --storage runs --name rates
  python -m jobs.tune all --data data/faces --storage runs --epochs 3 --scheduler asha --gpu
  python -m jobs.tune vggface2 --data data/faces --storage runs --search loguniform --samples 20 --workers-per-trial 4
  python -m jobs.tune lite0 --data data/faces --storage runs --learning-rates 1e-3,3e-4 \\
      --vary optim.weight_decay=0,0.05 --vary optim.freeze=blocks.2,blocks.4

VARIANT is a variant of jobs.train, or "all" for the six of Table II, one search after the other. By default the search
tries the three learning rates that occur in the paper's Table II. With --search loguniform Optuna chooses values around
them, starting with the variant's own. --vary adds any other field of the specification: a grid then tries every
combination of its values with every learning rate, and Optuna chooses among them. Each trial is the same training as
that of jobs.train. Trials are compared on the validation split alone, by --objective at the epoch whose weights are
kept.

RUNS/NAME (with all, RUNS/NAME-VARIANT for each) receives best.json (the spec with the best learning rate, for
jobs.train VARIANT --spec best.json), trials.csv (every epoch of every trial, with its spec, status and time),
objective.png and search.json. RUNS/NAME/trials/ID is the folder of a trial, with its model and TensorBoard events (make
tensorboard shows them). A failed trial is tried once more and then listed as failed; the search continues. After a
crash, run the same command with --resume: finished trials are not repeated.

The last line on stdout is one JSON object: search, variant, objective, best (learning_rate, settings: the values of
--vary, the value of the objective, spec: its file), table_2_learning_rate, trials, failed; with "all" a list of these
under "searches".
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
from jobs.search.plan import SearchPlan, claim, format_result
from jobs.search.tuner import run_search
from jobs.train import ALL


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("tune", __doc__)
    parser.add_argument("variant", metavar="VARIANT", help="the variant to tune; see above")
    parser.add_argument("--name", help="name of the search; the default is tune, the variant and the time")
    parser.add_argument("--resume", action="store_true", help="continue the search --name")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--learning-rates",
        metavar="LR,LR,...",
        help=f"values to try [those of Table II: {','.join(map(str, lr_search.TABLE_2_LEARNING_RATES))}]",
    )
    group.add_argument(
        "--search",
        choices=["grid", "loguniform"],
        default="grid",
        help="grid tries --learning-rates; loguniform draws --samples values [grid]",
    )
    group.add_argument("--samples", type=int, metavar="N", help="number of trials with --search loguniform [10]")
    group.add_argument(
        "--objective",
        choices=[*lr_search.OBJECTIVES],
        default="val_loss",
        help="the metric by which trials are compared [%(default)s]",
    )
    group.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE,...",
        help="another field of the specification to search, with its values, e.g. optim.weight_decay=0,0.05; may be "
        "repeated",
    )
    group.add_argument(
        "--scheduler", choices=["asha", "none"], default="none", help="asha stops unpromising trials early [none]"
    )
    group.add_argument(
        "--max-concurrent", type=int, metavar="K", help="trials at a time [as many as fit on the cluster]"
    )
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser, workers="--workers-per-trial", cache="auto")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks everything that can be checked, then searches."""
    if arguments.learning_rates and arguments.search == "loguniform":
        raise BadConfig(
            "--learning-rates lists the values to try, and --search loguniform samples them: give only one of the two"
        )
    if arguments.samples is not None and arguments.search == "grid":
        raise BadConfig("--samples needs --search loguniform: a grid search tries each learning rate once")
    for flag, value in (("--samples", arguments.samples), ("--max-concurrent", arguments.max_concurrent)):
        if value is not None and value < 1:
            raise BadConfig(f"{flag} is {value}: it must be 1 or more")
    if arguments.variant == ALL and arguments.spec:
        raise BadConfig(f"--spec {arguments.spec} is for one variant: it cannot be combined with 'all'")
    if arguments.resume and not arguments.name:
        raise BadConfig("--resume needs --name: the search to continue")
    if len(set(resource_flags.parse_workers(arguments.workers))) > 1:
        raise BadConfig(
            f"--workers-per-trial {arguments.workers}: give one number, because all trials must have the same"
        )
    data = manifest.load(storage.absolute(arguments.data))
    specs = [
        spec_flags.from_flags(arguments, name)
        for name in (VARIANTS if arguments.variant == ALL else [arguments.variant])
    ]
    resource_flags.check(arguments, specs, data)
    if arguments.objective != "val_loss" and data.split("valid")["label"].nunique() < 2:
        raise BadConfig(f"--objective {arguments.objective} needs both classes in the validation split: use val_loss")
    plans = [_plan(arguments, spec, data) for spec in specs]
    for plan in plans:
        claim(plan, resume=arguments.resume)
    with connect(dashboard=True):
        results = []
        for plan in plans:
            try:
                result = run_search(plan, arguments, data)
            except KeyboardInterrupt:
                flags = f"--name {_base_name(arguments, plan)} --resume"
                raise KeyboardInterrupt(f"run the same command with {flags} to continue") from None
            cli.say(format_result(result))
            results.append(result)
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
        learning_rates=list(lr_search.parse_learning_rates(arguments.learning_rates)) if grid else None,
        samples=None if grid else arguments.samples or 10,
        objective=arguments.objective,
        scheduler=arguments.scheduler,
        workers=resource_flags.parse_workers(arguments.workers)[0],
        vary=lr_search.parse_vary(arguments.vary, spec),
    )


def _base_name(arguments: argparse.Namespace, plan: SearchPlan) -> str:
    """The --name that resumes a search: for "all", without the variant that was appended to it."""
    variant = RunSpec.from_dict(plan.spec).variant
    return plan.name.removesuffix(f"-{variant}") if arguments.variant == ALL else plan.name


if __name__ == "__main__":
    main()
