"""Compare trained models on one or several data sets: metrics with intervals, paired tests, and whether one is better.

  python -m jobs.compare runs/first runs/second --data data/faces --out comparison
  python -m jobs.compare runs/first runs/second --data data/faces --data data/new-generator --out comparison
  python -m jobs.compare runs/lite0-seed0 runs/lite0-seed1 runs/lite2-seed0 runs/lite2-seed1 --out comparison

Each model is scored on the test split of each data set, unless jobs.evaluate has done so; without --data on the data
sets that the runs were trained on. Runs that differ in their seed alone are one model, which is compared by its mean
over the seeds.

Error rates at each model's own threshold cannot be compared, as one threshold may pass fewer fakes because it flags
more reals. So models are compared by ROC AUC (DeLong's paired test), and by the fakes they pass at thresholds at which
all flag the same share of the reals of their own validation split (--reals-flagged; McNemar's exact test). With several
seeds, the variance of both tests is that of the images and that between the seeds. p-values are adjusted for the number
of pairs (Holm). A model wins if its ROC AUC is significantly higher than that of every other. No model wins whose ROC
AUC may be 0.5, that flags more than half of the reals, or that was trained on test images or near-duplicates of them;
only the last are not compared with the winner, as what they score on these images says nothing.

OUT receives comparison.html (it opens offline), comparison.json, comparison.csv and comparison.tex (LaTeX, booktabs),
with each model's figures by source, and what the audit of each SET warned of; sources.csv if a SET has several sources.
A figure that cannot be had is null, with the reason.

The last line on stdout is one JSON object: comparison, sets (for each: name, winner, which is null if there is none,
reason).
"""

import argparse
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from detector_core import labels, storage
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.data.seen import overlap
from detector_core.errors import BadConfig, BadManifest
from detector_core.evaluation import calibration, model_comparison_html
from detector_core.evaluation.baselines import evaluate_baselines, fit_baselines
from detector_core.evaluation.intervals import Scores
from detector_core.evaluation.model_comparison import REALS_FLAGGED, ScoredRun, compare_models
from detector_core.evaluation.model_comparison_tables import comparison_files
from detector_core.evaluation.report import AUDIT_WARNING, GENERATED, REPORT, report_folder, without_sources
from detector_core.evaluation.scoring import SCORES
from detector_core.evaluation.significance import limit_at
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.evaluate import CALIBRATION_SPLIT, evaluate_model
from jobs.run.candidates import Candidate, model_names, open_candidate, unique_names
from jobs.run.request import seen_by, trained_on

COMPARISON, PAGE = "comparison.json", "comparison.html"
SPLIT = "test"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("compare", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders or URIs of runs or of models, two or more")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder or URI to write; files in it are replaced")
    parser.add_argument(
        "--data", action="append", default=[], metavar="SET", help="a data set made by jobs.prepare; may be repeated"
    )
    parser.add_argument(
        "--reals-flagged",
        type=float,
        default=REALS_FLAGGED,
        metavar="FRACTION",
        help="the share of the validation reals that every model flags at the matched threshold [%(default)s]",
    )
    parser.add_argument(
        "--workers", type=int, metavar="W", help="processes that score images [one per core, or per GPU with --gpu]"
    )
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores what is missing and compares."""
    if not 0 < arguments.reals_flagged < 1:
        raise BadConfig(f"--reals-flagged is {arguments.reals_flagged}: it must be above 0 and below 1")
    if arguments.workers is not None and arguments.workers < 1:
        raise BadConfig(f"--workers is {arguments.workers}: it must be 1 or more")
    given = [manifest.load(storage.absolute(where)) for where in arguments.data]
    candidates = [open_candidate(run, given) for run in arguments.runs]
    folders = Counter(candidate.folder for candidate in candidates)
    if len(folders) < 2 or max(folders.values()) > 1:
        raise BadConfig(f"RUN is {' '.join(arguments.runs)}: give two or more different runs")
    sets = given or [candidate.own for candidate in candidates if candidate.own]
    if not sets:
        raise BadConfig(f"{arguments.runs[0]} does not say where its data set is: give one with --data")
    sets = list({data.fingerprint: data for data in sets}.values())
    for data in sets:
        data.split(SPLIT)  # of one class, its figures that need both are null with the reason
    cli.say(f"comparing {len(candidates)} runs on {', '.join(data.name for data in sets)}")
    with connect(), ScoringWorkers(workers=arguments.workers, gpu=arguments.gpu) as scoring_workers:
        compared = compare_on_sets(candidates, sets, scoring_workers, share=arguments.reals_flagged)
    folder = storage.absolute(arguments.out)
    _write(folder, compared, _notes(candidates, sets))
    cli.say(model_comparison_html.format_sets(compared))
    return {
        "comparison": storage.join(folder, COMPARISON),
        "sets": [
            {"name": of["name"], "winner": of["winner"]["model"], "reason": of["winner"].get("reason")}
            for of in compared
        ],
    }


def check_classes(data: Manifest, split: str) -> None:
    """Raises BadManifest if a split does not have images of both classes, without which no models can be compared."""
    found = {*data.split(split)["label"]}
    missing = [label for label in labels.LABELS if label not in found]
    if missing:
        raise BadManifest(
            f"the data set {data.name} has no {missing[0]} images in its {split!r} split, so models could not be "
            f"compared on it: add some and prepare it again"
        )


def compare_on_sets(
    candidates: Sequence[Candidate],
    sets: Sequence[Manifest],
    scoring_workers: ScoringWorkers,
    *,
    share: float = REALS_FLAGGED,
) -> list[dict[str, Any]]:
    """Compares runs on the test split of each set.

    Returns:
        :func:`detector_core.evaluation.model_comparison.compare_models` of each set, with ``name``, ``fingerprint``,
        ``reals_flagged``, the share, and ``warnings``, those of the set's audit.
    """
    # The validation splits first: a model that was never evaluated is then calibrated on its own.
    limits = {candidate.folder: _matched_limit(candidate, share, scoring_workers) for candidate in candidates}
    models = model_names(candidates)
    seen = {candidate.folder: seen_by(candidate.folder, candidate.own) for candidate in candidates}
    names = unique_names([data.name for data in sets], [data.fingerprint[:8] for data in sets])
    compared = []
    for name, data in zip(names, sets, strict=True):
        runs = []
        for candidate in candidates:
            report, scores = report_and_scores(candidate, data, SPLIT, scoring_workers)
            limit, reason = limits[candidate.folder]
            runs.append(
                ScoredRun(
                    name=candidate.name,
                    model=models[candidate.folder],
                    seed=candidate.artifact.spec.seed,
                    scores=scores,
                    threshold=report["threshold"],
                    matched_limit=limit,
                    no_limit=reason,
                    overlap=overlap(seen[candidate.folder], data.split(SPLIT)),
                    sources=report.get("sources"),
                )
            )
        described = {"name": name, "fingerprint": data.fingerprint, "reals_flagged": share}
        described["warnings"] = [f"{AUDIT_WARNING} {warning}" for warning in data.warnings]
        compared.append({**described, **compare_models(runs), "baselines": _baselines(candidates, data, runs)})
    return compared


def _baselines(candidates: Sequence[Candidate], data: Manifest, runs: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    """The baselines of each data set that candidates were trained on, next to the models that were trained on it."""
    rows, results = data.split(SPLIT), []
    owns = [trained_on(candidate.folder, candidate.own) for candidate in candidates]
    for key, own in {_key(own): own for own in owns if own}.items():
        of_set = [run for run, of in zip(runs, owns, strict=True) if of and _key(of) == key]
        models = {
            name: np.stack([_logits_of(run, rows) for run in of_set if run.model == name])
            for name in dict.fromkeys(run.model for run in of_set)
        }
        results += evaluate_baselines(fit_baselines(own, rows, data.name), rows, models)
    return results


def _key(data: Manifest) -> tuple[str, tuple[str, ...]]:
    return data.fingerprint, data.left_out


def _logits_of(run: ScoredRun, rows: pd.DataFrame) -> Scores:
    """The logits of a run in the order of the rows."""
    return run.scores.set_index("path")["logit"].loc[rows["path"]].to_numpy(dtype=np.float64)


def report_and_scores(
    candidate: Candidate, data: Manifest, split: str, scoring_workers: ScoringWorkers
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report and the scores of a run on a split, evaluated if that was not done with its present thresholds."""
    own = data.fingerprint == candidate.artifact.data["fingerprint"]
    folder = report_folder(candidate.folder, split, None if own else data.fingerprint)
    report = _current_report(candidate, folder)
    if report is None or report["data"]["fingerprint"] != data.fingerprint:
        _, report, _ = evaluate_model(candidate.folder, data, scoring_workers, split=split)
    scores = pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(folder, SCORES))))
    return report, scores


def _current_report(candidate: Candidate, folder: str) -> dict[str, Any] | None:
    """A report on the present weights and thresholds; None if there is none."""
    path = storage.join(folder, REPORT)
    if not storage.exists(path):
        return None
    report: dict[str, Any] = json.loads(storage.read_bytes(path))
    sha256 = candidate.artifact.weights_sha256
    current = calibration.load(candidate.folder, sha256).fake_above
    return report if (report["model"]["weights_sha256"], report["threshold"]) == (sha256, current) else None


def _matched_limit(
    candidate: Candidate, share: float, scoring_workers: ScoringWorkers
) -> tuple[float | None, str | None]:
    """The logit above which a run flags that share of its validation reals; None with the reason if it has none."""
    if candidate.own is None:
        return None, "its own data set is not known: give it with --data"
    try:
        rows = candidate.own.split(CALIBRATION_SPLIT)
    except BadManifest as error:
        return None, str(error)
    _, scores = report_and_scores(candidate, candidate.own, CALIBRATION_SPLIT, scoring_workers)
    seen = without_sources(rows, candidate.artifact.data.get("left_out", ()))
    scores = scores[scores["path"].isin(seen["path"])]
    return limit_at(scores["logit"][~labels.is_fake(scores["label"])].to_numpy(), share)


def _notes(candidates: Sequence[Candidate], sets: Sequence[Manifest]) -> list[str]:
    generated = [candidate.artifact.data["generated"] for candidate in candidates] + [data.generated for data in sets]
    return [GENERATED] if any(generated) else []


def _write(folder: str, compared: list[dict[str, Any]], notes: list[str]) -> None:
    """Writes the files of the comparison, ``comparison.json`` last."""
    title = f"{len(compared[0]['models'])} models on {len(compared)} set{'s' * (len(compared) > 1)}"
    files = {
        **comparison_files(compared),
        PAGE: model_comparison_html.render_page(compared, title, notes).encode(),
        COMPARISON: json.dumps({"format": 1, "sets": compared}, indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)


if __name__ == "__main__":
    main()
