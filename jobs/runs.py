"""List every run below a folder with its figures: training, validation, and the report on its test split.

  python -m jobs.runs runs
  python -m jobs.runs s3://bucket/runs --out overview

RUNS is the --storage of jobs.train, jobs.tune or jobs.reproduce; the trials of searches are runs, too. The highest
ROC AUC on the test split comes first, runs that were not evaluated follow by their validation loss. A report that was
made of other weights than the run has now is not shown. Runs on different data sets cannot be compared by these
figures; jobs.compare tests whether a difference may be chance.

With --out, that folder receives runs.csv and runs.html (it opens offline).

The last line on stdout is one JSON object: storage, runs (for each: run, status, variant, data, ...; fractions, and
null where a figure is not there).
"""

import argparse
import io
import json
from typing import Any, NoReturn

import pandas as pd

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact
from detector_core.evaluation.html_page import escape, page, table
from detector_core.evaluation.report import REPORT, report_folder
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from jobs.common import cli
from jobs.run.request import model_folder, read_run_json

TABLE, PAGE = "runs.csv", "runs.html"
TRIALS = "trials"
FINISHED, STOPPED, UNFINISHED = "finished", "failed, kept its best", "unfinished"
SPLIT = "test"
_BOUNDS = ("test_auc_low", "test_auc_high")
_RATES = ("accuracy", "fakes_passed_rate", "reals_flagged_rate")
COLUMNS = {
    "run": "run",
    "status": "status",
    "variant": "variant",
    "data": "data set",
    "seed": "seed",
    "learning_rate": "learning rate",
    "epochs": "epochs",
    "best_epoch": "kept epoch",
    "val_loss": "validation loss",
    "val_auc": "validation ROC AUC",
    "test_auc": "test ROC AUC",
    "test_auc_low": "its interval from",
    "test_auc_high": "to",
    "accuracy": "test accuracy",
    "fakes_passed_rate": "fakes passed",
    "reals_flagged_rate": "reals flagged",
    "seconds": "training, s",
    "git_commit": "git commit",
    "created": "created",
}
"""Columns of the table and their titles."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("runs", __doc__)
    parser.add_argument("storage", metavar="RUNS", help="folder or URI of runs")
    parser.add_argument("--out", metavar="FOLDER", help="also write runs.csv and runs.html to this folder or URI")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads every run and prints the table."""
    root = storage.absolute(arguments.storage)
    rows = sorted(read_runs(root), key=_order)
    if not rows:
        raise BadConfig(f"{arguments.storage} has no runs: give the --storage of jobs.train")
    shown = [name for name in COLUMNS if name not in _BOUNDS]
    cells = [[_cell(name, row) for name in shown] for row in rows]
    frame = pd.DataFrame(cells, columns=[COLUMNS[name] for name in shown])
    cli.say(frame.loc[:, (frame != "").any()].to_string(index=False))
    if arguments.out:
        title = f"{len(rows)} run{'s' * (len(rows) > 1)} of {root.rpartition('/')[2]}"
        body = [f"<h1>{escape(title)}</h1>", table(tuple(frame.columns), cells)]
        files = {TABLE: pd.DataFrame(rows).to_csv(index=False).encode(), PAGE: page(title, body).encode()}
        for name, content in files.items():
            storage.write_bytes(storage.join(storage.absolute(arguments.out), name), content)
    return {"storage": root, "runs": rows}


def read_runs(root: str) -> list[dict[str, Any]]:
    """A row of :data:`COLUMNS` for each run directly below a folder, and for each trial of its searches.

    Raises:
        BrokenArtifact: a file of a run is damaged.
    """
    rows = []
    for name in storage.names(root):
        trials = storage.join(root, name, TRIALS)
        names = [name, *(f"{name}/{TRIALS}/{trial}" for trial in storage.names(trials))]
        rows += [row for row in (_row(root, of) for of in names) if row]
    return rows


def _row(root: str, name: str) -> dict[str, Any] | None:
    """The figures of a run; None if the folder is no run."""
    folder = storage.join(root, name)
    try:
        started = read_run_json(folder)
    except ValueError as error:
        raise BrokenArtifact(f"{folder}/run.json cannot be read ({error}): delete the run or repair the file") from None
    if started is None or "spec" not in started:
        return None
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    spec = started["spec"]
    row |= {"run": name, "status": UNFINISHED, "variant": spec["variant"], "data": started["data"].rpartition("/")[2]}
    row |= {"seed": spec["seed"], "learning_rate": spec["optim"]["learning_rate"]}
    model = model_folder(folder)
    if not storage.exists(storage.join(model, artifacts.ARTIFACT)):
        return row
    artifact = artifacts.read(model)
    return row | _trained(artifact) | _evaluated(model, artifact)


def _trained(artifact: Artifact) -> dict[str, Any]:
    training, best = artifact.training, artifact.training.get("best", {})
    return {
        "status": FINISHED if training["complete"] else STOPPED,
        "data": artifact.data["name"],
        "epochs": training.get("epochs"),
        "best_epoch": best.get("epoch"),
        "val_loss": best.get("val_loss"),
        "val_auc": best.get("val_auc"),
        "seconds": training.get("seconds"),
        "git_commit": artifact.git_commit,
        "created": artifact.created,
    }


def _evaluated(model: str, artifact: Artifact) -> dict[str, Any]:
    """The figures of the report on the test split of a run's own data set; nothing without one on these weights."""
    path = storage.join(report_folder(model, SPLIT), REPORT)
    if not storage.exists(path):
        return {}
    try:
        report = json.loads(io.BytesIO(storage.read_bytes(path)).read())
        if report["model"]["weights_sha256"] != artifact.weights_sha256:
            return {}
        auc = report["ranking"]["auc"]
        rates = {name: report["metrics"][name]["value"] for name in _RATES}
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenArtifact(f"{path} cannot be read ({error!r}): evaluate the run again") from None
    return {"test_auc": auc["value"], "test_auc_low": auc.get("low"), "test_auc_high": auc.get("high"), **rates}


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    auc, loss = row["test_auc"], row["val_loss"]
    return auc is None, -(auc or 0), loss is None, loss or 0, row["run"]


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return ""
    if name == "test_auc" and None not in (low_high := [row[bound] for bound in _BOUNDS]):
        return f"{value:.4f} ({low_high[0]:.4f}-{low_high[1]:.4f})"
    if name in _RATES:
        return f"{100 * value:.2f}%"
    if name == "git_commit":
        return str(value)[:12] + ("-dirty" if str(value).endswith("-dirty") else "")
    if name == "learning_rate":
        return f"{value:g}"
    if name == "seconds":
        return f"{value:,.0f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
