"""Evaluate a trained model on a split of a data set: error rates with 95% confidence intervals.

  python -m jobs.evaluate runs/resnet68-cutout-20260101-120000 --data data/faces
  python -m jobs.evaluate models/VERSION --data data/other-faces --split test --workers 8

RUN_OR_MODEL is the folder of a run or of a model. The first evaluation also scores the validation split of the data set
that the model was trained on, whichever DATASET is, chooses the temperature and both thresholds on it, and saves them
as calibration.json in the model folder. After that they are frozen: later evaluations use them, on any data set, unless
--recalibrate is given. Do not recalibrate a promoted VERSION: recalibrate its run and promote that, or choose its upper
threshold for a place with jobs.recalibrate.

MODEL/evaluation/SPLIT receives scores.parquet (path, label, source, logit and calibrated p_fake of each image),
report.json (metrics as fractions, with intervals, also by source if the images have several), plots, worst.png (the
images it gets most wrong, with heat maps), and report.html, which contains all of that and opens offline; each table of
it also as CSV and for LaTeX (metrics, sources, baselines and robustness .csv and .tex). For a data set that the model
was not trained on, the folder is SPLIT-FINGERPRINT, so the report on the model's own data set is kept. A human-readable
table is printed to stderr. Sources that the model was trained without (jobs.train --leave-out) choose no threshold and
are in no metric but their own.

Baselines stand next to the model: logistic regressions on file facts and on the radial spectrum, fitted on the training
split of the model's own data set. What the model has learnt is what it has above them.

A model folder keeps the hashes of the images that the model was trained and chosen on. The report says how many of the
images evaluated are among them or near-duplicates of them, and repeats what the audit of DATASET warned of.

The scores do not depend on the number of workers.

The last line on stdout is one JSON object: model, split, accuracy, auc (ROC AUC),
fakes_passed_rate, reals_flagged_rate (fractions; null if the split has one class only), seen and seen_near (how many
of the images are files that the model was trained or chosen on, and how many others near-duplicates of them; null if
that is not known), report.
"""

import argparse
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from detector_core import labels, storage
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.data.seen import overlap
from detector_core.errors import BadConfig, BadManifest
from detector_core.evaluation import baselines, calibration, explain, report_html
from detector_core.evaluation.baselines import MODEL
from detector_core.evaluation.calibration import UNCALIBRATED, Calibration
from detector_core.evaluation.report import build_report, describe_model, report_folder, without_sources
from detector_core.evaluation.report_text import format_report
from detector_core.evaluation.robustness import CHANGES, evaluate_grid, score_grid
from detector_core.labels import SPLITS
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.run.request import seen_by, trained_on

CALIBRATION_SPLIT = "valid"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("evaluate", __doc__)
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="folder or URI of a run or of a model")
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the split to evaluate on [%(default)s]")
    parser.add_argument(
        "--workers", type=int, metavar="W", help="processes that score images [one per core, or per GPU with --gpu]"
    )
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--recalibrate", action="store_true", help="choose the temperature and the thresholds again")
    parser.add_argument(
        "--max-fakes-passed",
        type=float,
        metavar="FRACTION",
        help="largest fraction of fakes that may get the verdict real, from 0 to below 1 (the report's fakes passed "
        "are more, as uncertain fakes count there, too); implies --recalibrate [0.01; up to 0.05 if otherwise fewer "
        "than half of the reals would be called real]",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help=f"also evaluate on the same images changed in {len(CHANGES)} ways, such as JPEG, blur and crops; takes "
        f"about {len(CHANGES) + 1} times as long",
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks the flags and evaluates."""
    limit = arguments.max_fakes_passed
    if limit is not None and not 0 <= limit < 1:
        raise BadConfig(f"--max-fakes-passed is {limit}: it must be 0 or more and below 1")
    if arguments.workers is not None and arguments.workers < 1:
        raise BadConfig(f"--workers is {arguments.workers}: it must be 1 or more")
    with connect(), ScoringWorkers(workers=arguments.workers, gpu=arguments.gpu) as scoring_workers:
        folder, report, report_path = evaluate_model(
            arguments.model,
            manifest.load(storage.absolute(arguments.data)),
            scoring_workers,
            split=arguments.split,
            recalibrate=arguments.recalibrate or limit is not None,
            max_fakes_passed=limit,
            robustness=arguments.robustness,
        )
    cli.say(format_report(report))
    metrics = report["metrics"]
    return {
        "model": folder,
        "split": arguments.split,
        "accuracy": metrics["accuracy"]["value"],
        "auc": report["ranking"]["auc"]["value"],
        "fakes_passed_rate": metrics["fakes_passed_rate"]["value"],
        "reals_flagged_rate": metrics["reals_flagged_rate"]["value"],
        "seen": report["overlap"]["exact"],
        "seen_near": report["overlap"]["near"],
        "report": report_path,
    }


def evaluate_model(
    run_or_model: str,
    data: Manifest,
    scoring_workers: ScoringWorkers,
    *,
    split: str = "test",
    recalibrate: bool = False,
    max_fakes_passed: float | None = None,
    robustness: bool = False,
) -> tuple[str, dict[str, Any], str]:
    """Scores a split, evaluates the scores and writes the report.

    Calibrates the model first, on the validation split of its own data set, if that has not been done yet, or if
    ``recalibrate``.

    Args:
        max_fakes_passed: see :func:`detector_core.evaluation.calibration.choose`.
        robustness: also evaluate on changed images.

    Returns:
        The model folder, the report, and the path of ``report.json``.

    Raises:
        BadConfig: ``recalibrate`` with another data set than the model's own.
    """
    folder = artifacts.find(run_or_model)
    artifact = artifacts.read(folder)
    rows, own = data.split(split), data.fingerprint == artifact.data["fingerprint"]
    known = trained_on(run_or_model, data if own else None)
    if recalibrate and not own:
        raise BadConfig(
            f"--recalibrate: thresholds are chosen on the validation split of the model's own data set, "
            f"{artifact.data['name']}, not of {data.name}; jobs.recalibrate chooses them for a place"
        )
    model_calibration, calibration_scores = _calibration_of(
        folder, artifact, known, scoring_workers, recalibrate=recalibrate, max_fakes_passed=max_fakes_passed
    )
    scores = calibration_scores.get(split) if own else None
    if scores is None or len(scores) < len(rows):
        scores = scoring_workers.score(folder, data.root, rows, f"scoring {split}")
    seen = without_sources(rows, known.left_out if own and known else ())
    grid = scoring_workers.score(folder, data.root, seen, "scoring changed images", score_grid) if robustness else None
    scores = scores.assign(p_fake=model_calibration.p_fake(scores["logit"]), source=rows["source"].to_numpy())
    model = describe_model(folder, artifact)
    report = build_report(
        scores,
        model_calibration,
        model=model,
        data=data.describe(),
        split=split,
        data_warnings=data.warnings,
        overlap=overlap(seen_by(run_or_model, known), rows),
        baselines=_baselines(known, data.name, seen, scores),
    )
    if grid is not None:
        report["robustness"] = evaluate_grid(grid, model_calibration)
    target = report_folder(folder, split, None if own else data.fingerprint)
    return folder, report, report_html.write(target, scores, report, _worst_images(folder, scores, data, report))


def _calibration_of(
    folder: str,
    artifact: Artifact,
    known: Manifest | None,
    scoring_workers: ScoringWorkers,
    *,
    recalibrate: bool,
    max_fakes_passed: float | None,
) -> tuple[Calibration, dict[str, pd.DataFrame]]:
    """A model's calibration, and the scores by split that it was chosen on if it is chosen now."""
    chosen = UNCALIBRATED if recalibrate else calibration.load(folder, artifact.weights_sha256)
    if chosen.chosen_on:
        return chosen, {}
    if known:
        return calibrate(scoring_workers, folder, artifact, known, max_fakes_passed=max_fakes_passed)
    cli.say(
        f"{artifact.run} has no thresholds, and its own data set, {artifact.data['name']}, is not known: 0.5 is used "
        f"(evaluate the run on that data set to choose them)"
    )
    return chosen, {}


def _worst_images(folder: str, scores: pd.DataFrame, data: Manifest, report: dict[str, Any]) -> dict[str, bytes]:
    """The PNG file of the images that a model gets most wrong, by name."""
    network, artifact = artifacts.load(folder)
    png = explain.draw_worst_images(network, artifact.spec.preprocess, scores, data.root, report["threshold"])
    return {explain.WORST_IMAGES: png}


def _baselines(own: Manifest | None, name: str, rows: pd.DataFrame, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """The baselines of a model on the images of its metrics, next to its own scores of them."""
    logits = scores.set_index("path")["logit"].loc[rows["path"]]
    fitted = baselines.fit_baselines(own, rows, name)
    return baselines.evaluate_baselines(fitted, rows, {MODEL: logits.to_numpy(dtype=np.float64)})


def calibrate(
    scoring_workers: ScoringWorkers, folder: str, artifact: Artifact, data: Manifest, *, max_fakes_passed: float | None
) -> tuple[Calibration, dict[str, pd.DataFrame]]:
    """Chooses a calibration on the validation split of a model's own data set, and saves it in the model folder.

    Returns:
        The calibration, and the scores it was chosen on, by split; the default calibration, with a warning, if the data
        set has no validation split or that has one class only.
    """
    try:
        rows = data.split(CALIBRATION_SPLIT)
    except BadManifest as error:
        cli.say(f"{error}: thresholds cannot be chosen, 0.5 is used")
        return UNCALIBRATED, {}
    title = f"scoring {CALIBRATION_SPLIT} to choose the thresholds"
    scores = scoring_workers.score(folder, data.root, rows, title)
    chosen = calibration.choose(
        labels.is_fake(scores["label"]),
        scores["logit"].to_numpy(),
        max_fakes_passed=max_fakes_passed,
        chosen_on={
            "fingerprint": data.fingerprint,
            "name": data.name,
            "split": CALIBRATION_SPLIT,
            "n": len(rows),
            "weights_sha256": artifact.weights_sha256,
        },
    )
    if not chosen.chosen_on:
        cli.say(
            f"the {CALIBRATION_SPLIT} split of {data.name} has one class only: thresholds cannot be chosen, 0.5 is used"
        )
    elif max_fakes_passed is None and chosen.max_fakes_passed != calibration.FAKES_PASSED_LIMITS[0]:
        strictest = calibration.FAKES_PASSED_LIMITS[0]
        cli.say(
            f"with at most {strictest:.0%} of fakes passed, fewer than half of the reals would be called real: the "
            f"limit is {chosen.max_fakes_passed:.0%} (--max-fakes-passed {strictest:g} enforces the stricter one)"
        )
    if chosen.chosen_on:
        calibration.save(folder, chosen)
    return chosen, {CALIBRATION_SPLIT: scores}


if __name__ == "__main__":
    main()
