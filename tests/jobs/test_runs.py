"""jobs.runs lists what is there, without Ray."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs.runs import COLUMNS
from tests.support.models import save_model, tiny_spec


def save_run(folder: Path, *, seed: int = 0, auc: float | None = None, finished: bool = True) -> Path:
    folder.mkdir(parents=True)
    spec = tiny_spec().replace({"seed": seed})
    (folder / "run.json").write_text(json.dumps({"spec": spec.to_dict(), "data": "/somewhere/faces"}))
    if finished:
        save_model(folder / "model", seed=seed, auc=auc, spec=spec)
    return folder


def test_every_run_is_listed_with_its_figures_the_best_first(tmp_path: Path, run_job: Any) -> None:
    runs = tmp_path / "runs"
    save_run(runs / "weak", auc=0.6)
    save_run(runs / "strong", seed=1, auc=0.9)
    save_run(runs / "running", finished=False)
    save_run(runs / "search" / "trials" / "t1", seed=2)
    stale = save_run(runs / "stale", seed=3, auc=0.99) / "model" / "evaluation" / "test" / "report.json"
    stale.write_text(stale.read_text().replace('"weights_sha256": "', '"weights_sha256": "old'))
    (runs / "notes").mkdir()
    done = run_job("runs", runs, "--out", tmp_path / "out")
    assert done.code == 0, done.messages
    listed = done.result["runs"]
    assert [row["run"] for row in listed] == ["strong", "weak", "running", "search/trials/t1", "stale"]
    assert all(list(row) == list(COLUMNS) for row in listed)
    assert [row["status"] for row in listed] == ["finished", "finished", "unfinished", "finished", "finished"]
    strong = listed[0]
    assert (strong["test_auc"], strong["accuracy"], strong["seed"], strong["data"]) == (0.9, 0.1, 1, "data d1")
    assert listed[4]["test_auc"] is None, "its report is of other weights"
    assert "10.00%" in done.messages
    table = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert table["run"].tolist() == [row["run"] for row in listed]
    assert "<h1>5 runs of runs</h1>" in (tmp_path / "out" / "runs.html").read_text()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (None, "", "has no runs: give the --storage of jobs.train"),
        ("run.json", "{", "run.json cannot be read"),
        ("model/evaluation/test/report.json", "{}", "report.json cannot be read (KeyError('model')): evaluate"),
    ],
)
def test_a_folder_without_runs_and_a_damaged_file_are_named(
    tmp_path: Path, run_job: Any, file: str | None, content: str, message: str
) -> None:
    if file:
        (save_run(tmp_path / "runs" / "one", auc=0.5) / file).write_text(content)
    done = run_job("runs", tmp_path / "runs")
    assert (done.code, done.result) == (1, {})
    assert message in done.last_message
