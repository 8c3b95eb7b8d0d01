"""jobs.compare on the Ray cluster that the tests of the jobs share."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.networks import artifacts, factory


def save_run(folder: Path, spec: RunSpec, dataset: Path) -> Path:
    """An untrained run of a spec, with weights drawn by its seed."""
    torch.manual_seed(spec.seed)
    data = manifest.load(str(dataset)).describe()
    artifact = artifacts.Artifact(run=folder.name, spec=spec, data=data, training={"complete": True})
    artifacts.save(folder / "model", factory.build(spec.model).state_dict(), artifact)
    (folder / "run.json").write_text(json.dumps({"data": str(dataset)}))
    return folder


@pytest.mark.usefixtures("shared_ray")
def test_runs_are_compared_on_their_own_data_and_on_a_set_that_one_of_them_was_trained_on(
    tiny_dataset: Path, small_dataset: Path, tiny_spec: RunSpec, tmp_path: Path, run_job: Any
) -> None:
    first = save_run(tmp_path / "first", tiny_spec, tiny_dataset)
    again = save_run(tmp_path / "again", tiny_spec.replace({"seed": 1}), tiny_dataset)
    other = save_run(tmp_path / "other", tiny_spec.replace({"optim.epochs": 9}), small_dataset)
    data, small = manifest.load(str(tiny_dataset)), manifest.load(str(small_dataset))
    train = data.frame[(data.frame["split"] == "train") & ~data.frame["sha256"].isin(small.frame["sha256"])]
    leaked = train.assign(split="test")
    leaked = leaked.assign(source=leaked["label"] + "s")
    found = {"warnings": ["groups across splits: 1"]}
    manifest.save(str(tmp_path / "leak"), leaked, root=data.root, name="tiny", generated=True, audit=found)

    sets = ["--data", tiny_dataset, "--data", tmp_path / "leak"]
    done = run_job("compare", first, again, other, *sets, "--out", tmp_path / "out", "--reals-flagged", "0.34")
    assert done.code == 0, done.messages
    names = [of["name"] for of in done.result["sets"]]
    assert all(name.startswith("tiny (") for name in names), "two sets have the same name"
    assert len(set(names)) == 2
    assert done.result["sets"][0]["winner"] is None, "they are not trained"
    result = json.loads(Path(done.result["comparison"]).read_text())
    own, leak = result["sets"]
    assert own["images"] == {"real": 8, "fake": 8}
    assert [(row["run"], row["model"], row["seed"], row["overlap"]["exact"]) for row in own["rows"]] == [
        ("first", "first", 0, 0),
        ("again", "first", 1, 0),
        ("other", "other", 0, 0),
    ], "the first two differ in their seed alone"
    assert [row["overlap"]["exact"] for row in leak["rows"]] == [36, 36, 0]
    assert leak["winner"]["excluded"]["first"].startswith("was trained or chosen on 36")
    assert [(entry["name"], entry["trained_on"]) for entry in own["baselines"]] == [
        (name, "tiny") for name in ("file_facts", "radial_spectrum")
    ] * 2, "of each data set that a run was trained on"
    assert [model["seeds"] for model in own["models"]] == [[0, 1], [0]]
    for row in own["rows"]:
        assert row["matched_reals_flagged_rate"]["of"] == 8
    scores = [pd.read_parquet(run / "model" / "evaluation" / "test" / "scores.parquet") for run in (first, again)]
    assert not scores[0]["logit"].equals(scores[1]["logit"]), "the same workers score every model, each with its own"
    chosen = json.loads((other / "model" / "calibration.json").read_text())["chosen_on"]
    assert chosen["fingerprint"] == small.fingerprint, "calibrated on its own validation split, not on the first set"
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Generated demo data" in page
    assert "has seen 36 of these images" in page
    assert "The audit of the data set: groups across splits: 1" in page
    assert (own["warnings"], own["rows"][0]["sources"]) == ([], None)
    sources = pd.read_csv(tmp_path / "out" / "sources.csv")
    assert set(sources["run"]) == {"first", "again", "other"}
    assert sources[sources["run"] == "first"][["real", "fake"]].to_numpy().sum() == len(leaked)
    assert len((tmp_path / "out" / "comparison.csv").read_text().splitlines()) == 15, (
        "a header, three runs and four baselines on two sets"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--reals-flagged", "1"], "--reals-flagged is 1.0: it must be above 0 and below 1"),
        (["--workers", "0"], "--workers is 0: it must be 1 or more"),
        (["--data", "nowhere"], "nowhere is not a prepared data set"),
        ([], "give two or more different runs"),
    ],
)
def test_invalid_flags_are_reported_in_one_line(
    tiny_spec: RunSpec, tiny_dataset: Path, tmp_path: Path, run_job: Any, changes: list[str], message: str
) -> None:
    run = save_run(tmp_path / "run", tiny_spec, tiny_dataset)
    done = run_job("compare", run, run / "model", "--out", tmp_path / "out", *changes)
    assert (done.code, done.result) == (1, {})
    assert message in done.last_message
    assert not (tmp_path / "out").exists()
