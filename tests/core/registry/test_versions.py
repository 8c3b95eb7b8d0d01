import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact, OperationRefused
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.calibration import save as save_calibration
from detector_core.networks import artifacts
from detector_core.registry import versions
from tests.support.models import add_report, save_model


def hidden(models: Path) -> list[str]:
    """Files that an interrupted write leaves."""
    return [path.name for path in models.iterdir() if path.name.startswith(".")]


def test_a_promoted_model_is_a_complete_copy_and_live(tmp_path: Path) -> None:
    model, models = save_model(tmp_path / "run" / "model"), tmp_path / "models"
    version = versions.promote(tmp_path / "run", models)
    assert versions.live(models) == models / version
    assert version.startswith("tiny-")
    assert (models / "live").read_text() == f"{version}\n"
    names = {path.relative_to(model).as_posix() for path in model.rglob("*")}
    assert {path.relative_to(models / version).as_posix() for path in (models / version).rglob("*")} == names
    assert "evaluation/test/report.json" in names
    assert artifacts.load(versions.live(models))[1].run == "tiny"
    assert hidden(models) == []


def test_another_user_may_read_a_promoted_model(tmp_path: Path) -> None:
    """Weights are written privately, and a version is a copy of them."""
    model = save_model(tmp_path / "model")
    model.chmod(0o700)
    (model / artifacts.WEIGHTS).chmod(0o600)
    version = tmp_path / "models" / versions.promote(model, tmp_path / "models")
    before = os.umask(0o022)
    os.umask(before)
    for path in (version, *version.rglob("*"), tmp_path / "models" / "live"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~before, path


def test_promoting_the_live_model_again_changes_nothing(tmp_path: Path) -> None:
    model, models = save_model(tmp_path / "model"), tmp_path / "models"
    first = versions.promote(model, models)
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    assert versions.promote(model, models) == first
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


def test_new_thresholds_make_a_new_version(tmp_path: Path) -> None:
    model, models = save_model(tmp_path / "model"), tmp_path / "models"
    first = versions.promote(model, models)
    sha256 = artifacts.read(model).weights_sha256
    save_calibration(str(model), Calibration(fake_above=0.6, chosen_on={"weights_sha256": sha256}))
    assert versions.promote(model, models) != first
    assert len(versions.list_versions(models)) == 2


def test_a_damaged_copy_is_repaired(tmp_path: Path) -> None:
    model, models = save_model(tmp_path / "model"), tmp_path / "models"
    version = versions.promote(model, models)
    (models / version / artifacts.WEIGHTS).write_bytes(b"damaged")
    assert versions.promote(model, models) == version
    assert artifacts.load(models / version)[1].run == "tiny"


def test_a_model_without_a_test_report_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", auc=None)
    with pytest.raises(OperationRefused, match=r"jobs\.evaluate"):
        versions.promote(model, tmp_path / "models")
    add_report(model, auc=0.9, data={"name": "x", "fingerprint": "x"}, sha256="0" * 64)
    with pytest.raises(OperationRefused, match="was never evaluated on a test split"):
        versions.promote(model, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def _truncated_weights(model: Path) -> None:
    path = model / artifacts.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])


def _calibration_of_other_weights(model: Path) -> None:
    save_calibration(str(model), Calibration(chosen_on={"weights_sha256": "0" * 64}))


def _damaged_report(model: Path) -> None:
    (model / "evaluation" / "test" / "report.json").write_text("{")


@pytest.mark.parametrize("damage", [_truncated_weights, _calibration_of_other_weights, _damaged_report, shutil.rmtree])
def test_a_broken_model_is_refused_and_the_live_one_stays(tmp_path: Path, damage: Any) -> None:
    models = tmp_path / "models"
    version = versions.promote(save_model(tmp_path / "good"), models)
    broken = save_model(tmp_path / "broken", seed=1)
    damage(broken)
    with pytest.raises(BrokenArtifact):
        versions.promote(broken, models)
    assert versions.list_versions(models) == [version]
    assert hidden(models) == []


def test_a_worse_model_is_refused_unless_forced(tmp_path: Path) -> None:
    models = tmp_path / "models"
    good = versions.promote(save_model(tmp_path / "good", auc=0.9), models)
    worse = save_model(tmp_path / "worse", seed=1, run="worse", auc=0.89)
    with pytest.raises(OperationRefused, match=r"worse than the live .* 0\.8900 against 0\.9000.*--force"):
        versions.promote(worse, models)
    assert versions.live(models).name == good
    forced = versions.promote(worse, models, force=True)
    assert versions.live(models).name == forced != good


@pytest.mark.parametrize(("auc", "data"), [(0.9, "d1"), (0.5, "d2")])
def test_a_model_that_is_no_worse_or_not_comparable_is_promoted(tmp_path: Path, auc: float, data: str) -> None:
    models = tmp_path / "models"
    versions.promote(save_model(tmp_path / "first", auc=0.9, data="d1"), models)
    version = versions.promote(save_model(tmp_path / "second", seed=1, auc=auc, data=data), models)
    assert versions.live(models).name == version


def test_models_are_compared_on_every_data_set_of_both(tmp_path: Path) -> None:
    models, other = tmp_path / "models", {"name": "other", "fingerprint": "d9"}
    first, second = save_model(tmp_path / "first", auc=0.8), save_model(tmp_path / "second", seed=1, auc=0.9)
    add_report(first, auc=0.7, data=other, name="test-d9")
    add_report(second, auc=0.6, data=other, name="test-d9")
    versions.promote(first, models)
    with pytest.raises(OperationRefused, match="test split of other"):
        versions.promote(second, models)


def test_a_report_without_auc_is_not_compared(tmp_path: Path) -> None:
    first, second = save_model(tmp_path / "first", auc=0.9), save_model(tmp_path / "second", seed=1, auc=None)
    add_report(second, auc=None, data={"name": "data d1", "fingerprint": "d1"})
    versions.promote(first, tmp_path / "models")
    assert versions.promote(second, tmp_path / "models") == versions.live(tmp_path / "models").name


def test_rollback_goes_back_step_by_step(tmp_path: Path) -> None:
    models = tmp_path / "models"
    a, b, c = (versions.promote(save_model(tmp_path / str(seed), seed=seed), models) for seed in range(3))
    assert versions.list_versions(models) == [c, b, a]
    assert versions.rollback(models) == b
    assert versions.live(models).name == b
    assert versions.list_versions(models) == [b, a, c]
    assert versions.rollback(models) == a
    with pytest.raises(OperationRefused, match="nothing to roll back to"):
        versions.rollback(models)
    assert versions.promote(tmp_path / "2", models) == c
    assert versions.list_versions(models) == [c, a, b]


def test_rollback_skips_deleted_and_refuses_changed_versions(tmp_path: Path) -> None:
    models = tmp_path / "models"
    a, b, c = (versions.promote(save_model(tmp_path / str(seed), seed=seed), models) for seed in range(3))
    shutil.rmtree(models / b)
    (models / a / artifacts.WEIGHTS).write_bytes(b"changed")
    with pytest.raises(BrokenArtifact, match="was changed"):
        versions.rollback(models)
    assert versions.live(models).name == c


def test_without_a_promotion_the_error_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no live model.*jobs\.promote RUN --to"):
        versions.live(tmp_path / "models")
    assert versions.list_versions(tmp_path / "models") == []


def test_a_missing_live_version_is_named_and_can_be_replaced(tmp_path: Path) -> None:
    models = tmp_path / "models"
    missing = versions.promote(save_model(tmp_path / "a"), models)
    shutil.rmtree(models / missing)
    with pytest.raises(BrokenArtifact, match=missing):
        versions.live(models)
    new = versions.promote(save_model(tmp_path / "b", seed=1, auc=0.1), models)
    assert versions.live(models).name == new


def test_a_run_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    models = tmp_path / "models"
    version = versions.promote(save_model(tmp_path / "a", run="../../evil run"), models)
    assert (models / version).parent == models
    assert json.loads((models / version / artifacts.ARTIFACT).read_text())["run"] == "../../evil run"


def test_prune_keeps_the_live_version_and_the_newest_before_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    a, b, c = (versions.promote(save_model(tmp_path / str(seed), seed=seed), models) for seed in range(3))
    assert versions.prune(models, 2) == [a]
    assert versions.list_versions(models) == [c, b]
    assert versions.rollback(models) == b
    assert versions.prune(models, 1) == [c]
    assert versions.live(models).name == b
    assert versions.prune(models, 1) == []
    assert hidden(models) == []
    assert sorted(path.name for path in models.iterdir()) == sorted(["live", b])
    with pytest.raises(BadConfig, match="always kept"):
        versions.prune(models, 0)


def test_prune_reads_the_live_version_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback while versions are being removed must not change which of them are."""
    models, reads, read_bytes = tmp_path / "models", [], storage.read_bytes
    for seed in range(4):
        versions.promote(save_model(tmp_path / str(seed), seed=seed), models)
    monkeypatch.setattr(storage, "read_bytes", lambda file: reads.append(Path(file).name) or read_bytes(file))
    assert len(versions.prune(models, 1)) == 3
    assert reads == ["live"]


def test_a_report_of_another_format_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    path = model / "evaluation" / "test" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(BrokenArtifact, match=r"format is 1, 2 was expected.*evaluate the model again"):
        versions.promote(model, tmp_path / "models")


def test_added_files_are_part_of_the_version(tmp_path: Path) -> None:
    model, models = save_model(tmp_path / "model"), tmp_path / "models"

    def fail(folder: Path) -> None:
        (folder / "more").touch()
        raise OperationRefused("no")

    with pytest.raises(OperationRefused, match="no"):
        versions.promote(model, models, add_files=fail)
    assert versions.list_versions(models) == []
    assert hidden(models) == []
    one = versions.promote(model, models, add_files=lambda folder: (folder / "more").touch(), key="a")
    other = versions.promote(model, models, key="b")
    assert one != other
    assert (models / one / "more").exists()
    assert not (model / "more").exists()
