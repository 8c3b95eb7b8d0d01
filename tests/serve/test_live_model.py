"""How a replica follows the live model: promotions, broken versions, rollbacks, a store that cannot be reached."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector_core.errors import DetectorError
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, describe
from serve_app.live_model import LiveModel, poll
from serve_app.settings import Settings
from tests.support.models import save_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    versions.promote(save_model(tmp_path / "first", run="first"), tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def outcomes() -> list[bool]:
    """Whether each change of the live model could be loaded."""
    return []


@pytest.fixture
def live_model(models: Path, outcomes: list[bool]) -> Iterator[LiveModel[ModelInfo]]:
    live_model = LiveModel(Settings(models=str(models), poll_s=3600), describe, outcomes.append)
    yield live_model
    live_model.stop()


def test_a_model_that_cannot_be_read_is_named(models: Path) -> None:
    weights = versions.live(models) / artifacts.WEIGHTS
    weights.unlink()
    weights.mkdir()
    with pytest.raises(DetectorError, match=rf"the model cannot be read: a folder is .* \({weights}\): move it away"):
        LiveModel(Settings(models=str(models)), artifacts.load)


def promote(models: Path, run: str, auc: float) -> str:
    return versions.promote(save_model(models.parent / run, run=run, auc=auc), models)


def test_a_promotion_and_a_rollback_replace_the_model(
    live_model: LiveModel[ModelInfo], models: Path, outcomes: list[bool]
) -> None:
    first = live_model.current.version
    second = promote(models, "second", auc=0.95)
    live_model.update()
    assert live_model.current.version == second
    versions.rollback(models)
    live_model.update()
    assert live_model.current.version == first
    assert outcomes == [True, True]


def test_a_broken_version_is_logged_once_and_the_previous_model_stays(
    live_model: LiveModel[ModelInfo], models: Path, outcomes: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    first = live_model.current.version
    broken = promote(models, "broken", auc=0.95)
    (models / broken / artifacts.ARTIFACT).write_text("{}")
    live_model.update()
    live_model.update()
    assert live_model.current.version == first
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the previous one stays" in caplog.text
    assert outcomes == [False]


def test_polling_goes_on_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def update() -> None:
        if not caplog.records:
            raise AttributeError("unexpected")
        done.set()

    stopped = poll(update, 0.01)
    assert done.wait(10)
    stopped.set()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_unreachable_store_is_tried_again(
    live_model: LiveModel[ModelInfo], models: Path, outcomes: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    first = live_model.current.version
    second = promote(models, "second", auc=0.95)
    pointer = models / versions.LIVE
    pointer.rename(models / "aside")
    pointer.mkdir()  # reading it fails with an OSError
    live_model.update()
    assert live_model.current.version == first
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    pointer.rmdir()
    (models / "aside").rename(pointer)
    live_model.update()
    assert live_model.current.version == second
    assert outcomes == [True]
