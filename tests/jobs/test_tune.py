"""jobs.tune on a real Ray: the files of a search, resuming it, and that a trial equals a training."""

import importlib.metadata
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.networks import artifacts
from jobs.common.cluster import connect
from jobs.common.ray_internals import get_or_create_autoscaling_coordinator
from jobs.tune import main
from tests.support.progress import Process

VARIANT = "timm:test_resnet-cutout"


def flags(spec_file: Path, dataset: Path, folder: Path, name: str, *more: str) -> list[str]:
    where = ["--data", str(dataset), "--storage", str(folder / "runs"), "--cache", str(folder / "cache")]
    return [VARIANT, "--spec", str(spec_file), *where, "--name", name, "--cpus", "1", *more]


@pytest.fixture
def tune(run_job: Any, shared_ray: str) -> Callable[..., dict[str, Any]]:  # noqa: ARG001
    """Runs a search on the shared Ray cluster; its result. Fails unless it succeeds."""

    def run(*arguments: str) -> dict[str, Any]:
        code, result, messages = run_job("tune", *arguments)
        assert code == 0, messages
        return dict(result)

    return run


def refused(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(list(arguments))
    assert isinstance(exited.value.code, int)
    return exited.value.code


def models(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/model/artifact.json")}


def test_a_killed_search_is_resumed_and_training_with_its_best_learning_rate_repeats_the_best_trial(
    tiny_dataset: Path, tiny_spec: RunSpec, spec_file: Path, tmp_path: Path, tune: Any, run_job: Any
) -> None:
    """No finished trial is repeated. The learning rate 1e30 fails: it is tried once more, is listed as failed, and does
    not end the search."""
    how = ("--learning-rates", "0.003,1e30", "--retries", "0", "--max-concurrent", "1")
    search = flags(spec_file, tiny_dataset, tmp_path, "rates", *how)
    folder = tmp_path / "runs" / "rates"
    process = Process([sys.executable, "-m", "jobs.tune", *search])
    process.wait_until(lambda: len(list(folder.glob("trials/*/run.json"))) == 2)
    process.send_signal(signal.SIGKILL)
    _, _, err = process.finish()
    before = models(folder)
    assert len(before) == 1, err
    result = tune(*search, "--resume")
    assert models(folder) == before
    assert (result["trials"], result["failed"], result["best"]["learning_rate"]) == (2, 1, 0.003)
    trials = pd.read_csv(folder / "trials.csv")
    status = trials.groupby("optim.learning_rate")["status"].first().to_dict()
    assert status == {0.003: "completed", 1e30: "failed"}
    assert "loss is" in trials["error"].dropna().iloc[0]
    assert (folder / "objective.png").stat().st_size > 1000
    assert not [path for path in folder.glob("trials/*/checkpoint_*") if path.is_dir()]
    assert len(list((tmp_path / "cache").rglob("pixels.npy"))) == 2  # train and valid, once for all trials

    best = json.loads((folder / "best.json").read_text())
    assert best.pop("cpus_per_worker") == 1
    assert best["optim"]["compute_dtype"] in ("bf16", "fp32"), "what auto was in the trials"
    changes = {"optim.learning_rate": 0.003, "optim.compute_dtype": best["optim"]["compute_dtype"]}
    assert RunSpec.from_dict(best) == tiny_spec.replace(changes)
    where = ["--data", str(tiny_dataset), "--storage", str(tmp_path), "--name", "again"]
    trained = run_job("train", VARIANT, "--spec", folder / "best.json", *where)
    assert trained.code == 0, trained.messages
    artifact = artifacts.read(tmp_path / "again" / "model")
    environment = {"device": "cpu", "compute_dtype": best["optim"]["compute_dtype"], "torch_threads": 1}
    assert artifact.training["environments"] == [environment], "with the cores and the compute dtype of the trial"
    assert artifact.versions["ray"] == importlib.metadata.version("ray")
    again = pd.read_csv(tmp_path / "again" / "metrics.csv")
    tried = trials[trials["optim.learning_rate"] == 0.003].reset_index(drop=True)
    for column in ("epoch", "steps", "train_loss", "val_loss", "val_auc"):
        assert tried[column].tolist() == again[column].tolist(), column

    name = tried["trial"].iloc[0]
    events = EventAccumulator(str(folder / "trials" / name / "tensorboard")).Reload()
    assert [scalar.value for scalar in events.Scalars("val_loss")] == pytest.approx(again["val_loss"].tolist())
    hparams = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"learning_rate" in hparams

    assert refused(*search) == 1
    assert refused(*flags(spec_file, tiny_dataset, tmp_path, "rates", "--learning-rates", "0.003", "--resume")) == 1


def test_asha_stops_trials_early_and_optuna_starts_with_the_learning_rate_of_the_spec(
    tiny_dataset: Path, spec_file: Path, tmp_path: Path, tune: Any
) -> None:
    """Only one trial fits at a time, so a stopped one must release its cores, and its reservation of them, for which an
    elastic run would wait."""
    how = ["--search", "loguniform", "--samples", "3", "--scheduler", "asha", "--epochs", "4", "--objective", "val_auc"]
    how += ["--vary", "optim.label_smoothing=0.1,0.0"]
    result = tune(*flags(spec_file, tiny_dataset, tmp_path, "asha", *how, "--cpus", "2"))
    trials = pd.read_csv(tmp_path / "runs" / "asha" / "trials.csv")
    status = trials.groupby("trial")["status"].first()
    assert len(status) == 3
    assert set(status) == {"completed", "stopped early"}
    learning_rates = set(trials["optim.learning_rate"])
    assert len(learning_rates) == 3
    assert 0.003 in learning_rates
    assert all(1e-5 <= rate <= 1e-2 for rate in learning_rates)
    aucs = trials.groupby("optim.learning_rate")["val_auc"].max()
    assert aucs[result["best"]["learning_rate"]] == aucs.max()
    first = trials[trials["optim.learning_rate"] == 0.003]
    assert set(first["optim.label_smoothing"]) == {0.0}, "the value of the spec is tried first"
    best = json.loads((tmp_path / "runs" / "asha" / "best.json").read_text())
    assert result["best"]["settings"] == {"optim.label_smoothing": best["optim"]["label_smoothing"]}

    with connect():
        coordinator = get_or_create_autoscaling_coordinator()
        ray.get(coordinator.request_resources.remote("elastic", [{"CPU": 1}, {"CPU": 1}], 1))
        reserved = ray.get(coordinator.get_reserved_resources.remote("elastic"))
        ray.get(coordinator.cancel_request.remote("elastic"))
    assert sum(of["CPU"] for of in reserved.values()) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rates", "fast"], "--learning-rates fast"),
        (["--samples", "3"], "--samples needs"),
        (["--learning-rates", "1e-3", "--search", "loguniform"], "give only one of the two"),
        (["--max-concurrent", "0"], "--max-concurrent is 0"),
        (["--workers-per-trial", "1:2"], "--workers-per-trial 1:2"),
        (["--resume"], "--resume needs --name"),
        (["--vary", "optim.weight_decay=0.1"], "give FIELD=VALUE,VALUE,..."),
        (["--vary", "seed=1,2"], "the best of several seeds is the luckiest"),
    ],
)
def test_invalid_flags_are_refused_before_ray_starts(
    tiny_dataset: Path,
    spec_file: Path,
    tmp_path: Path,
    more: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = flags(spec_file, tiny_dataset, tmp_path, "refused", *more)
    if more == ["--resume"]:
        del arguments[arguments.index("--name") : arguments.index("--name") + 2]
    assert refused(*arguments) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_objective_that_needs_both_classes_is_refused(
    writable_dataset: Path, spec_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = manifest.load(str(writable_dataset))
    frame = data.frame[(data.frame["split"] != "valid") | (data.frame["label"] == "real")]
    one = str(tmp_path / "one")
    manifest.save(one, frame, root=data.root, name="one", generated=True, audit={})
    assert refused(*flags(spec_file, Path(one), tmp_path, "n", "--objective", "val_auc")) == 1
    assert "needs both classes" in capfd.readouterr().err


@pytest.mark.usefixtures("shared_ray")
def test_more_workers_than_cores_are_refused_at_once(
    tiny_dataset: Path, spec_file: Path, tmp_path: Path, run_job: Any
) -> None:
    arguments = flags(spec_file, tiny_dataset, tmp_path, "much", "--workers-per-trial", "12", "--cpus", "9")
    done = run_job("tune", *arguments)
    assert done.code == 1
    assert "needs 108 CPU" in done.messages
