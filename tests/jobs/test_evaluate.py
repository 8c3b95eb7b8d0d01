"""jobs.evaluate and its scoring workers, on the Ray cluster that the tests of the jobs share."""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.errors import BadConfig, BadImage, BrokenArtifact
from detector_core.networks import artifacts, factory
from jobs import evaluate
from jobs.common import scoring_workers
from jobs.common.cluster import connect

pytestmark = pytest.mark.usefixtures("shared_ray")
FILES = (
    "scores.parquet",
    "report.json",
    "report.html",
    *(f"{table}.{ending}" for table in ("metrics", "baselines") for ending in ("csv", "tex")),
    *(
        f"{plot}.{ending}"
        for plot in ("roc", "roc_log", "det", "histogram", "reliability")
        for ending in ("png", "svg")
    ),
    "worst.png",
)


def save_model(folder: Path, spec: RunSpec, dataset: Path) -> Path:
    """An untrained model whose artifact says that it was trained on a data set."""
    torch.manual_seed(0)
    artifact = artifacts.Artifact(
        run="tiny", spec=spec, data=manifest.load(str(dataset)).describe(), training={"complete": True}
    )
    artifacts.save(folder / "model", factory.build(spec.model).state_dict(), artifact)
    return folder


def arguments(model: Path, dataset: Path, **changes: Any) -> argparse.Namespace:
    defaults = {
        "split": "test",
        "workers": 1,
        "gpu": False,
        "recalibrate": False,
        "max_fakes_passed": None,
        "robustness": False,
    }
    return argparse.Namespace(model=str(model), data=str(dataset), **{**defaults, **changes})


@pytest.fixture
def model(tmp_path: Path, tiny_spec: RunSpec, tiny_dataset: Path) -> Path:
    return save_model(tmp_path / "run", tiny_spec, tiny_dataset)


def test_a_run_is_evaluated_and_calibrated_once(model: Path, tiny_dataset: Path, run_job: Any) -> None:
    first = run_job("evaluate", model, "--data", tiny_dataset, "--workers", 1)
    assert first.code == 0, first.messages
    assert list(first.result) == [
        "model",
        "split",
        "accuracy",
        "auc",
        "fakes_passed_rate",
        "reals_flagged_rate",
        "seen",
        "seen_near",
        "report",
    ]
    folder = model / "model" / "evaluation" / "test"
    assert first.result["report"] == str(folder / "report.json")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"]["accuracy"]["value"] == first.result["accuracy"]
    scores = pd.read_parquet(folder / "scores.parquet")
    assert list(scores.columns) == ["path", "label", "logit", "p_fake", "source"]
    assert len(scores) == 16
    for text in ("Generated demo data", "fakes passed", "reals flagged", "is real"):
        assert text in first.messages
    chosen = json.loads((model / "model" / "calibration.json").read_text())
    assert chosen["chosen_on"]["split"] == "valid"
    assert chosen["chosen_on"]["n"] == 16

    assert "robustness" not in report
    assert (first.result["seen"], first.result["seen_near"]) == (0, None), "its hashes are of another length"
    assert "images the model was trained or chosen on" in first.messages
    assert [entry["auc"]["reason"] for entry in report["baselines"]] == [
        "tiny was prepared by an older version: prepare it again"
    ] * 2
    assert "baselines, without a network" in first.messages

    second = run_job(
        "evaluate", model / "model", "--data", tiny_dataset, "--split", "valid", "--workers", 1, "--robustness"
    )
    assert second.code == 0, second.messages
    assert "these metrics are optimistic" in second.messages
    assert second.result["seen"] == 16
    assert "to choose the thresholds" not in second.messages
    assert "blur sigma 1.5" in second.messages
    page = (model / "model" / "evaluation" / "valid" / "report.html").read_text()
    assert "blur sigma 1.5" in page
    assert json.loads((model / "model" / "calibration.json").read_text()) == chosen


def test_invalid_arguments_are_refused_before_anything_is_written(
    model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(BrokenArtifact, match="it is not a model folder"):
        evaluate.job(arguments(tmp_path / "nothing", tiny_dataset))
    for flag, value in (("workers", 0), ("max_fakes_passed", 1.0), ("max_fakes_passed", -0.1)):
        with pytest.raises(BadConfig, match=f"--{flag.replace('_', '-')} is"):
            evaluate.job(arguments(model, tiny_dataset, **{flag: value}))
    assert not (model / "model" / "evaluation").exists()


def scores(model: Path, dataset: Path, workers: list[int]) -> list[pd.DataFrame]:
    """Scores the test split once for each number of workers, in tasks of five images."""
    data, results = manifest.load(str(dataset)), []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), connect():
        warnings.simplefilter("ignore")  # of Ray, which are errors under pytest
        patch.setattr(scoring_workers, "BATCH", 5)
        for count in workers:
            with scoring_workers.ScoringWorkers(workers=count, gpu=False) as pool:
                results.append(pool.score(str(model / "model"), data.root, data.split("test"), "scoring"))
    return results


def test_scores_do_not_depend_on_the_number_of_workers_and_a_broken_image_is_named(
    model: Path, writable_dataset: Path
) -> None:
    one, two = scores(model, writable_dataset, [1, 2])
    pd.testing.assert_frame_equal(one, two)
    data = manifest.load(str(writable_dataset))
    broken = Path(data.root) / data.split("test")["path"][7]
    broken.write_bytes(b"no image")
    with pytest.raises(BadImage, match=str(broken)):
        scores(model, writable_dataset, [1])


def test_changed_weights_are_refused(model: Path, tiny_dataset: Path) -> None:
    weights = model / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(BrokenArtifact, match="was changed"):
        scores(model, tiny_dataset, [1])
