import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.errors import BadImage, BrokenArtifact
from detector_core.evaluation import robustness, scoring
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.evaluation.robustness import CHANGES, UNCHANGED, evaluate_grid, score_grid
from detector_core.networks import factory

DRAW = np.random.default_rng(0)
IMAGE = DRAW.integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_changes_an_image_and_returns_an_image(name: str) -> None:
    changed = CHANGES[name].apply(IMAGE, np.random.default_rng(1))
    assert changed.dtype == np.uint8
    smaller = {"center 90%": (36, 45), "center 75%": (30, 38), "frame shifted by 10%": (36, 45), "screenshot": (30, 38)}
    assert changed.shape == (*smaller.get(name, (40, 50)), 3)
    assert changed.shape != IMAGE.shape or (changed != IMAGE).any()


def test_changes_have_the_documented_effect() -> None:
    flat = np.full((20, 20, 3), 128, np.uint8)
    for name in ("JPEG quality 30", "resized to 0.25 and back", "blur sigma 3", "screenshot", "uploaded twice"):
        assert (CHANGES[name].apply(flat, DRAW) == 128).all(), "a flat image has no detail to lose"
    noisy = CHANGES["noise sigma 10"].apply(np.full((200, 200, 3), 128, np.uint8), np.random.default_rng(0))
    assert noisy.std() == pytest.approx(10, rel=0.02)
    assert (CHANGES["center 75%"].apply(IMAGE, DRAW) == IMAGE[5:35, 6:44]).all()
    assert (CHANGES["frame shifted by 10%"].apply(IMAGE, DRAW) == IMAGE[:36, :45]).all()
    assert CHANGES["brightness x 1.3"].apply(np.uint8([[[100, 200, 10]]]), DRAW).tolist() == [[[130, 255, 13]]]
    errors = [np.abs(CHANGES[f"JPEG quality {q}"].apply(IMAGE, DRAW) - IMAGE.astype(int)).mean() for q in (95, 30)]
    assert errors[0] < errors[1]


def test_unchanged_images_score_as_in_the_evaluation(
    tiny_spec: RunSpec, writable_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = factory.build(tiny_spec.model)
    data = manifest.load(str(writable_dataset))
    rows, files = data.split("test"), []
    plain = scoring.score(model, rows, data.root, tiny_spec.preprocess)
    read_bytes = storage.read_bytes
    monkeypatch.setattr(robustness.storage, "read_bytes", lambda file: files.append(file) or read_bytes(file))
    grid = score_grid(model, rows, data.root, tiny_spec.preprocess, batch_size=3, threads=2)
    assert sorted(files) == sorted(storage.join(data.root, path) for path in rows["path"]), "each file is read once"
    assert list(grid.columns) == ["path", "label", UNCHANGED, *CHANGES]
    assert grid[UNCHANGED].to_numpy() == pytest.approx(plain["logit"].to_numpy(), abs=1e-5)
    for change, kept in (("reals as JPEG, fakes as PNG", "fake"), ("fakes as JPEG, reals as PNG", "real")):
        keeps = (grid["label"] == kept).to_numpy()
        assert grid[change][keeps].to_numpy() == pytest.approx(grid[UNCHANGED][keeps].to_numpy(), abs=1e-5)
        assert (grid[change][~keeps] != grid[UNCHANGED][~keeps]).all()
    again = score_grid(model, rows, data.root, tiny_spec.preprocess, batch_size=8)
    np.testing.assert_allclose(again["noise sigma 10"], grid["noise sigma 10"], atol=1e-5)
    json.dumps(evaluate_grid(grid, UNCALIBRATED), allow_nan=False)


def test_a_damaged_or_missing_image_is_named(writable_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("test")
    victim = Path(data.root) / rows["path"][1]
    victim.write_bytes(b"")
    with pytest.raises(BadImage, match=f"{victim}: the file is empty"):
        score_grid(nn.Identity(), rows, data.root, tiny_spec.preprocess)
    victim.unlink()
    with pytest.raises(BadImage, match=f"{victim}: the file does not exist"):
        score_grid(nn.Identity(), rows, data.root, tiny_spec.preprocess)


def test_a_score_that_is_not_finite_is_refused_with_its_file_and_change(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    class NotANumber(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            logit_B = x_BCHW.std((1, 2, 3))
            return torch.where(logit_B < logit_B.max(), torch.nan, logit_B)

    data = manifest.load(str(tiny_dataset))
    row = data.split("test").iloc[:2]
    with pytest.raises(BrokenArtifact, match=f"nan for ({'|'.join(map(re.escape, row['path']))}) .unchanged.: train"):
        score_grid(NotANumber(), row, data.root, tiny_spec.preprocess)


def test_the_metrics_of_a_row_are_those_of_its_scores() -> None:
    """A hundred reals and ten fakes; 30 of the former and eight of the latter have a p_fake of 0.5 or more."""
    labels = ["real"] * 100 + ["fake"] * 10
    separated = np.repeat([-3.0, 3.0], (100, 10))
    blurred = np.array([-2.0] * 70 + [1.0] * 20 + [2.25] * 9 + [2.5] + [-1.0, -1.0] + [2.0] * 3 + [2.4] + [3.0] * 4)
    grid = pd.DataFrame({"path": labels, "label": labels, **dict.fromkeys((UNCHANGED, *CHANGES), separated)})
    rows = {row["change"]: row for row in evaluate_grid(grid.assign(**{"blur sigma 3": blurred}), UNCALIBRATED)}
    assert list(rows) == [UNCHANGED, *CHANGES]
    assert {name: estimate["value"] for name, estimate in rows[UNCHANGED].items() if name != "change"} == {
        "auc": 1,
        "fakes_caught_at_0.01": 1,
        "accuracy": 1,
        "fakes_passed_rate": 0,
        "reals_flagged_rate": 0,
    }
    assert {name: estimate["value"] for name, estimate in rows["blur sigma 3"].items() if name != "change"} == {
        "auc": pytest.approx((2 * 70 + 3 * 90 + 99 + 4 * 100) / 1000),  # reals below each fake
        "fakes_caught_at_0.01": 0.5,  # those above 2.25, the second highest score of a real
        "accuracy": pytest.approx(78 / 110),
        "fakes_passed_rate": 0.2,
        "reals_flagged_rate": 0.3,
    }
