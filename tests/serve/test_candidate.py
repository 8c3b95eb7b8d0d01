"""The candidate of a canary in a process that runs the model: when it is loaded, and what ends the canary."""

import asyncio
import shutil
from pathlib import Path

import pytest

from detector_core.networks import artifacts
from detector_core.registry import canaries
from detector_core.registry.predictor import Predictor, blank_image
from serve_app.canary import Candidate, CandidatePredictor
from serve_app.settings import Settings
from tests.support.canary import AGREES, Registry, Trial, make_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def agreeing(registry: Registry, tmp_path: Path) -> Trial:
    return Trial(registry, tmp_path, AGREES)


def test_a_process_holds_the_candidate_only_while_the_canary_runs(agreeing: Trial) -> None:
    loading: list[Path] = []
    settings = Settings(models=str(agreeing.models))

    def load(folder: Path) -> CandidatePredictor:
        loading.append(folder)
        return CandidatePredictor(agreeing.candidate.predictor, settings)

    candidate = Candidate(str(agreeing.models), load)
    for _ in range(3):
        candidate.update()
    assert loading == [agreeing.models / agreeing.new]
    loaded = candidate.current
    assert loaded
    blank = blank_image(loaded.predictor.info)
    assert asyncio.run(loaded.batcher.run(blank)) == loaded.predictor.predict([blank])[0]
    canaries.stop(agreeing.models)
    candidate.update()
    assert candidate.current is None


@pytest.mark.parametrize("damage", ["weights", "folder"])
def test_a_candidate_that_cannot_be_loaded_ends_the_canary(
    agreeing: Trial, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = agreeing.models / agreeing.new
    if damage == "weights":
        (folder / artifacts.WEIGHTS).write_bytes(b"damaged")
    else:
        shutil.rmtree(folder)
    candidate = Candidate(str(agreeing.models), Predictor)
    candidate.update()
    candidate.update()
    assert candidate.current is None
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    shown = agreeing.shown()
    assert shown["state"] == "not_loaded"
    assert shown["reason"].startswith("BrokenArtifact: ")
    assert set(agreeing.ask_all()) == {agreeing.live}


def test_a_store_that_cannot_be_reached_is_tried_again(agreeing: Trial, caplog: pytest.LogCaptureFixture) -> None:
    def load(_: Path) -> str:
        if not caplog.records:
            raise OSError("the disk is away")
        return "loaded"

    candidate = Candidate(str(agreeing.models), load)
    candidate.update()
    assert candidate.current is None
    candidate.update()
    assert candidate.current == "loaded"
    assert agreeing.shown()["state"] == "comparing"
