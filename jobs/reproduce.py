"""Reproduce the paper's comparison: train the six variants, evaluate each on the test split, and compare them.

  python -m jobs.reproduce --data data/faces --storage runs --workers 4 --gpu
  python -m jobs.reproduce --data data/faces --storage runs --init none --epochs-scale 0.1 --image-scale 0.4 \\
      --batch-size 32 --micro-batch 16
  python -m jobs.reproduce --data data/faces --storage runs --seeds 3 --gpu
  python -m jobs.reproduce --data data/faces --storage runs --matched --name matched --seeds 3 --gpu
  python -m jobs.reproduce --data data/faces --storage runs --init-of vggface2=vggface2.pt --init-of resnet68=none

Epochs and learning rates are those of Table II; image and batch sizes are listed in docs/usage.md. On a machine without
a GPU, --epochs-scale and --image-scale reduce epochs and image sizes, to no less than one epoch and the smallest image
that a network accepts. On a few thousand images also give a small --batch-size and --micro-batch, or Resnet-68, whose
batch is 1000, makes only a few steps.

After an interruption, run the same command again to continue: finished runs and evaluations are not repeated.

RUNS/NAME-VARIANT-SEED is the folder of a run, evaluated as by jobs.evaluate. RUNS/NAME receives comparison.html
(the comparison of jobs.compare, with intervals and paired tests; Tables III, IV and V next to the paper's figures, with
its misprints marked; McNemar's tests between the variants at their own thresholds; cost; it opens offline),
comparison.json, comparison.csv and sources.csv as of jobs.compare, table5.csv, comparison.tex (all tables in LaTeX) and
curves.png and .svg (like the paper's Figs. 5-7).

A variant wins as in jobs.compare: by a significantly higher ROC AUC. The paper's rule, the fewest fakes passed (on a
tie, the higher accuracy), has a row of its own: each variant stands at its own threshold, so by this rule a model that
calls everything fake wins. within_noise lists the variants whose difference from the paper's rule's winner in fakes
passed may be due to chance (McNemar's test on the fakes between the first seeds, p > 0.05, not corrected for the number
of pairs).

The last line on stdout is one JSON object: comparison, winner (null if there is none), no_winner (why),
fewest_fakes_passed (the winner by the paper's rule), within_noise, variants (for each: accuracy, fakes_passed_rate,
reals_flagged_rate; fractions, means over seeds).
"""

import argparse
import io
import json
from typing import Any, NoReturn

import pandas as pd

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig
from detector_core.evaluation import comparison, comparison_html, scoring
from detector_core.evaluation.comparison import EvaluatedRun
from detector_core.evaluation.model_comparison_tables import comparison_files
from detector_core.evaluation.report import REPORT, report_folder
from detector_core.evaluation.report_text import format_report
from detector_core.networks import artifacts, factory
from detector_core.networks.catalog import find_network
from detector_core.networks.variants import CUTOUT_SUFFIX, VARIANTS
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.compare import check_classes, compare_on_sets
from jobs.evaluate import evaluate_model
from jobs.run import resource_flags, spec_flags
from jobs.run.candidates import open_candidate
from jobs.run.request import model_folder
from jobs.train import is_trained, train

COMPARISON, PAGE, TABLE = "comparison.json", "comparison.html", "table5.csv"
SPLIT = "test"
NETWORKS = tuple(dict.fromkeys(variant.removesuffix(CUTOUT_SUFFIX) for variant in VARIANTS))


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("reproduce", __doc__)
    parser.add_argument("--name", default="reproduce", help="prefix of the name of every run [%(default)s]")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="number of runs per variant, with the seeds --seed, --seed + 1, ...",
    )
    parser.add_argument(
        "--epochs-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="factor for the epochs (of Table II, or --epochs), above 0 to 1 [1]",
    )
    parser.add_argument(
        "--image-scale", type=float, default=1.0, metavar="F", help="factor for each image size, above 0 to 1 [1]"
    )
    parser.add_argument(
        "--init-of",
        action="append",
        default=[],
        metavar="NETWORK=INIT",
        help=f"--init for one network ({', '.join(NETWORKS)}), with and without cut-out; may be repeated",
    )
    parser.add_argument(
        "--matched",
        action="store_true",
        help="train each cut-out variant with the learning rate and the epochs of the variant without cut-out, which "
        "Table II changes together with it; give another --name than that of the paper's runs",
    )
    parser.add_argument("--robustness", action="store_true", help="also evaluate on changed images, see jobs.evaluate")
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser)
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks the flags, trains and evaluates what is missing, and compares."""
    for flag, value in (("--epochs-scale", arguments.epochs_scale), ("--image-scale", arguments.image_scale)):
        if not 0 < value <= 1:
            raise BadConfig(f"{flag} is {value}: it must be above 0 and at most 1")
    if arguments.seeds < 1:
        raise BadConfig(f"--seeds is {arguments.seeds}: it must be 1 or more")
    if arguments.spec:
        raise BadConfig(f"--spec {arguments.spec} is for one variant: it cannot be used for all six")
    data = manifest.load(storage.absolute(arguments.data))
    check_classes(data, SPLIT)
    runs = specs(arguments)
    resource_flags.check(arguments, list(runs.values()), data)
    root = storage.absolute(arguments.storage)
    todo = {name: spec for name, spec in runs.items() if not is_trained(storage.join(root, name), spec, data)}
    cli.say(f"{len(runs)} runs, {len(todo)} to train: {', '.join(todo) or 'none'}; checking the initial weights")
    for model in dict.fromkeys(spec.model for spec in todo.values()):
        factory.build(model)  # missing initial weights are reported now, not after the first variant
    with connect():
        if todo:
            train(resource_flags.requests(arguments, todo), data, keep_checkpoints=arguments.keep_checkpoints)
        cli.say(f"evaluating {len(runs)} runs on the {SPLIT} split")
        with ScoringWorkers(workers=None, gpu=arguments.gpu) as scoring_workers:
            for name in runs:
                _evaluate(storage.join(root, name), data, scoring_workers, robustness=arguments.robustness)
            candidates = [open_candidate(storage.join(root, name), [data]) for name in runs]
            (models,) = compare_on_sets(candidates, [data], scoring_workers)
    evaluated_runs = [collect(storage.join(root, name)) for name in runs]
    folder = storage.join(root, arguments.name)
    result = write_comparison(folder, evaluated_runs, models, matched=arguments.matched)
    cli.say(comparison_html.format_comparison(result))
    columns = ("variant", "accuracy", "fakes_passed_rate", "reals_flagged_rate")
    return {
        "comparison": storage.join(folder, COMPARISON),
        "winner": models["winner"]["model"],
        "no_winner": models["winner"].get("reason"),
        "fewest_fakes_passed": result["winner"]["variant"],
        "within_noise": result["winner"]["within_noise"],
        "variants": [{name: row[name] for name in columns} for row in result["means"]],
    }


def specs(arguments: argparse.Namespace) -> dict[str, RunSpec]:
    """The spec of each run, by name, in the order of Table II."""
    runs, init_of = {}, _init_of(arguments.init_of)
    for variant in VARIANTS:
        network = variant.removesuffix(CUTOUT_SUFFIX)
        variant_arguments = argparse.Namespace(**{**vars(arguments), "init": init_of.get(network, arguments.init)})
        spec = spec_flags.from_flags(variant_arguments, variant)
        if arguments.matched:
            without_cutout = spec_flags.from_flags(variant_arguments, network).optim
            same = {"learning_rate": without_cutout.learning_rate, "epochs": without_cutout.epochs}
            spec = spec.replace({f"optim.{name}": value for name, value in same.items()})
        size, epochs = spec.preprocess.image_size, spec.optim.epochs
        scaled = {
            "preprocess.image_size": max(
                find_network(spec.model.architecture).smallest_image, min(size, round(size * arguments.image_scale))
            ),
            "optim.epochs": max(1, round(epochs * arguments.epochs_scale)),
        }
        for seed in range(spec.seed, spec.seed + arguments.seeds):
            runs[f"{arguments.name}-{variant}-{seed}"] = spec.replace({**scaled, "seed": seed})
    return runs


def _init_of(items: list[str]) -> dict[str, str]:
    """--init-of as a table: network -> initial weights."""
    init_of = {}
    for item in items:
        network, equals, init = item.partition("=")
        if network not in NETWORKS or not equals or not init:
            raise BadConfig(f"--init-of {item}: give NETWORK=INIT, where NETWORK is one of {', '.join(NETWORKS)}")
        init_of[network] = init
    return init_of


def _evaluate(run: str, data: Manifest, scoring_workers: ScoringWorkers, *, robustness: bool) -> None:
    """Evaluates the model of a run, unless that has been done."""
    report = _report(run)
    if report is None or (robustness and "robustness" not in report):
        _, report, _ = evaluate_model(run, data, scoring_workers, split=SPLIT, robustness=robustness)
        cli.say(format_report(report))


def _report(run: str) -> dict[str, Any] | None:
    """The report on the current model of a run; None if it was not evaluated yet."""
    path = storage.join(report_folder(model_folder(run), SPLIT), REPORT)
    if not storage.exists(path):
        return None
    report: dict[str, Any] = json.loads(storage.read_bytes(path))
    current = report["model"]["weights_sha256"] == artifacts.read(model_folder(run)).weights_sha256
    return report if current else None


def collect(run: str) -> EvaluatedRun:
    """Reads what a trained and evaluated run has written."""
    model = model_folder(run)
    artifact = artifacts.read(model)
    folder = report_folder(model, SPLIT)
    return EvaluatedRun(
        spec=artifact.spec,
        report=json.loads(storage.read_bytes(storage.join(folder, REPORT))),
        scores=pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(folder, scoring.SCORES)))),
        training=artifact.training,
        history=_history(run),
    )


def _history(run: str) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.csv``."""
    table = pd.read_csv(io.BytesIO(storage.read_bytes(storage.join(run, "metrics.csv"))))
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def write_comparison(
    folder: str, runs: list[EvaluatedRun], models: dict[str, Any], *, matched: bool = False
) -> dict[str, Any]:
    """Compares runs with the paper and writes the files, ``comparison.json`` last; returns its content.

    Args:
        models: the comparison of jobs.compare on the same images.
        matched: whether cut-out is all that a variant and its cut-out form differ in.
    """
    result = comparison.compare(runs) | {"models": models, "matched": matched}
    curves = comparison_html.draw_learning_curves(runs)
    files = {
        **curves,
        **comparison_files([models], *comparison_html.latex_tables(result)),
        TABLE: comparison.table_5(result["means"]).to_csv(index=False).encode(),
        PAGE: comparison_html.render_page(result, runs, curves).encode(),
        COMPARISON: json.dumps(result, indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)
    return result


if __name__ == "__main__":
    main()
