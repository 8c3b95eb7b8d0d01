"""The starter model: complete, small, without images, promoted where nothing was, and right about real faces."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from detector_core import storage
from detector_core.data import seen
from detector_core.errors import BrokenArtifact
from detector_core.evaluation.calibration import load as load_calibration
from detector_core.evaluation.robustness import CHANGES, UNCHANGED
from detector_core.images.decode import decode
from detector_core.images.preprocess import square
from detector_core.networks import artifacts
from detector_core.registry import starter, test_reports, versions
from detector_core.registry.predictor import Predictor, describe

FOLDER = Path(str(files("detector_core"))) / starter.NAME
MOST_BYTES = 12e6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODELS folder to which the starter was promoted."""
    folder = tmp_path_factory.mktemp("starter") / "models"
    messages: list[object] = []
    assert starter.promote_if_empty(folder, messages.append) is not None
    assert "promoting the starter model" in str(messages[0])
    return folder


def test_it_is_small_and_shows_nobody() -> None:
    paths = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < MOST_BYTES
    assert {path.name for path in paths} == {
        *("artifact.json", "calibration.json", "model.safetensors", "parity_gate.json", "report.json", "seen.parquet"),
        *("MODEL_CARD.md", "curves.png"),  # the only image: loss and accuracy over the epochs
    }
    assert "/" not in json.loads((FOLDER / "evaluation" / "test" / "report.json").read_text())["model"]["folder"]


def test_it_is_a_complete_model_with_thresholds_and_a_test_report() -> None:
    artifact = artifacts.read(FOLDER)
    assert artifact.weights_sha256 == artifacts.sha256_of(FOLDER / artifacts.WEIGHTS)
    assert load_calibration(str(FOLDER), artifact.weights_sha256).chosen_on["split"] == "valid"
    (report,) = test_reports.read(FOLDER).values()
    assert report["ranking"]["auc"]["value"] > 0.98
    assert {row["change"] for row in report["robustness"]} == {UNCHANGED, *CHANGES}
    known = seen.read(str(FOLDER))
    assert known is not None
    assert known["use"].value_counts().to_dict() == {
        split: sum(artifact.data["counts"][split].values()) for split in ("train", "valid")
    }


def test_it_is_promoted_where_nothing_was(models: Path) -> None:
    info = describe(versions.live(models))
    assert (info.name, info.variant) == (starter.NAME, "lite-ensemble")
    gate = json.loads((FOLDER / "parity_gate.json").read_text())
    assert info.precision == gate["precision"], "what passed the gate when it was built"
    assert starter.promote_if_empty(models, print) is None


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    shutil.copytree(FOLDER, package / starter.NAME)
    weights = package / starter.NAME / artifacts.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(starter, "files", lambda _: package)
    with pytest.raises(BrokenArtifact, match="was changed"):
        starter.promote_if_empty(tmp_path / "models", print)
    assert versions.history(tmp_path / "models") == []


def test_without_a_folder_it_is_promoted_to_one_of_the_user_and_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "private_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(starter, "promote_if_empty", lambda models, _: Path(models).mkdir())
    before = Path(starter.private_models(print))
    assert before.name == f"deepfake-detector-{versions.version_name(FOLDER)}"
    updated = tmp_path / "package" / starter.NAME
    shutil.copytree(FOLDER, updated)
    text = (updated / artifacts.ARTIFACT).read_text()
    (updated / artifacts.ARTIFACT).write_text(text.replace('"epoch": 1,', '"epoch":  1,', 1))
    monkeypatch.setattr(starter, "files", lambda _: tmp_path / "package")
    assert Path(starter.private_models(print)) != before, "an updated starter is not hidden by an old copy"


def test_real_faces_get_the_right_verdicts(models: Path, faces: Path) -> None:
    """Forty test images; the report promises 95% of them."""
    predictor = Predictor(versions.live(models))
    root = faces / "real_vs_fake" / "real-vs-fake" / "test"
    wrong = 0
    for label in ("real", "fake"):
        paths = sorted((root / label).glob("*.jpg"))[:20]
        images = [square(decode(path.read_bytes()), predictor.info.preprocess) for path in paths]
        p_fake = np.array([prediction.p_fake for prediction in predictor.predict(images)])
        cut = predictor.info.calibration.fake_above
        wrong += int(((p_fake >= cut) != (label == "fake")).sum())
    assert wrong <= 6
