"""benchmarks.relearn, its generator and benchmarks.label_errors, on a tiny data set."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_errors, relearn
from benchmarks.second_generator import SecondGenerator
from detector_core.data import manifest
from detector_core.images.decode import decode
from detector_core.training.round_inputs import LiveModel
from tests.support.tagged import hashed_dataset, live_model


def test_each_way_is_measured_on_the_new_generator_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relearn, "TAGS", (24,))
    monkeypatch.setattr(relearn, "FLIPPED_TAGS", 24)
    monkeypatch.setattr(relearn, "FLIPPED", {"25% flipped": 0.25})
    dataset = hashed_dataset(tmp_path / "data", {"train": 24, "valid": 8, "test": 8})
    live, data = LiveModel.load(live_model(tmp_path / "live", dataset)), manifest.load(str(dataset))
    images = relearn.load(live.trunk, data, tmp_path, None)
    assert (len(images["tags"].rows), images["tags"].is_fake.sum(), len(images["new"].rows)) == (24, 12, 8)
    rows = relearn.measure(relearn.Setting(live, data, images, None), (), ())
    flipped = ["head, 25% flipped", "head, 25% flipped, doubtful left out"]
    assert [row["way"] for row in rows] == ["live", *relearn.FAST, *flipped]
    assert [row["tags"] for row in rows] == [0, *[24] * 5]
    called = live.calibration.p_fake(images["new"].logits(live.trunk)) >= live.calibration.fake_above
    assert rows[0]["new_fakes_passed"] == np.mean(~called)
    assert rows[0]["passed"]  # it was compared with nothing
    assert relearn.draw(rows).startswith(b"\x89PNG")
    changed = relearn.flip(images["tags"], 0.25).is_fake != images["tags"].is_fake
    assert changed.sum() == 6


def test_the_generator_repaints_a_photograph_anew_for_each_seed(tmp_path: Path) -> None:
    data = manifest.load(str(hashed_dataset(tmp_path, {"train": 4, "valid": 1, "test": 1})))
    photographs = [decode(Path(data.root, path).read_bytes()) for path in data.split("train")["path"]]
    generator = SecondGenerator.fit(photographs)
    painted, again, other = (generator.repaint(photographs[0], seed).astype(int) for seed in (0, 0, 1))
    assert (painted == again).all()
    assert (painted != other).any()
    errors = [np.abs(painted - photograph).mean() for photograph in photographs]
    assert int(np.argmin(errors)) == 0  # it resembles what it repaints


def test_flipped_labels_of_separate_classes_are_found() -> None:
    draw = np.random.default_rng(0)
    truth_N = np.arange(60) % 2 == 1
    feature_ND = (draw.normal(0, 0.3, (60, 4)) + 3.0 * truth_N[:, None]).astype(np.float32)
    row = label_errors._row(feature_ND, truth_N, 0.2)
    assert (row["tags"], row["flipped"], row["found"], row["wrong"]) == (60, 36, 36, 0)
    assert label_errors._row(feature_ND, truth_N, 0.0)["flipped"] == 0
