"""The rung network of jobs.relearn on the Ray cluster that the tests of the jobs share."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import feedback, manifest, round_log
from detector_core.errors import InsufficientResources
from detector_core.registry import versions
from detector_core.training import fine_tuning
from jobs import relearn
from jobs.run import fine_tune
from tests.support.tagged import arguments, give_accepted, hashed_dataset, live_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hashed_dataset(tmp_path_factory.mktemp("relearn"), {"train": 60, "valid": 30, "test": 24})


@pytest.fixture
def weak_models(tmp_path: Path, dataset: Path) -> Path:
    """A registry whose live model is wrong about half of the images of each class."""
    versions.promote(live_model(tmp_path / "weak", dataset, balanced=True), tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def models(tmp_path: Path, dataset: Path) -> Path:
    """A registry whose live model calls nearly everything real, so that it flags no reals."""
    versions.promote(live_model(tmp_path / "live", dataset), tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.usefixtures("shared_ray")
def test_the_network_is_fine_tuned_continues_after_a_stop_and_leaves_nothing(
    weak_models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has finished when the round dies, so the next round takes its weights without training again."""
    monkeypatch.setattr(fine_tuning, "PASSES", 2)
    folder, runs = tmp_path / "feedback", tmp_path / "feedback" / feedback.ROUND_RUNS
    ids = give_accepted(folder, 12)
    command = arguments(weak_models, folder, dataset, "--rung", "network", "--per-giver", 100)

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fine_tune, "model_folder", killed)
        assert run_job("relearn", *command).code == 130
    (run,) = runs.glob("network-*")
    request = json.loads((run / "run.json").read_text())
    assert request["spec"]["optim"] | {"stratify": True, "epochs": 1} == request["spec"]["optim"]
    (runs / "network-of-other-tags").mkdir()
    monkeypatch.setattr(fine_tune.launch, "launch", None)
    done = run_job("relearn", *command)
    assert done.result["rung"] == "network", done.messages
    assert not runs.exists()
    candidates = json.loads((Path(done.result["round"]) / round_log.ROUND).read_text())["candidates"]
    assert list(candidates) == ["network"]
    assert done.result["tags"] + done.result["held_out"] + done.result["left_out"] == len(ids)


def test_the_network_reads_tags_of_a_relative_folder(
    models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train's workers have a working directory of their own."""
    give_accepted(tmp_path / "feedback", 12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(relearn, "connect", nullcontext)
    monkeypatch.setattr(fine_tune.resource_flags, "fair_share", lambda _: 1)

    def refuse(**_: object) -> None:
        raise InsufficientResources("4 cores are needed")

    monkeypatch.setattr(fine_tune, "check_resources", refuse)
    command = arguments(models, Path("feedback"), dataset, "--rung", "network", "--per-giver", 100)
    assert run_job("relearn", *command).last_message == "error: 4 cores are needed"
    made = manifest.load(str(tmp_path / "feedback" / feedback.ROUND_RUNS / fine_tune.DATASET))
    auto = run_job("relearn", *command, "--rung", "auto")
    assert (auto.code, auto.result["passed"]) == (3, False), auto.messages
    assert "network has failed: 4 cores are needed" in auto.messages
    assert {Path(path).is_absolute() for path in made.frame["path"]} == {True}
