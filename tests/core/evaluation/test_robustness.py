import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.errors import BadImage
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
    swapped = grid["reals as JPEG, fakes as PNG"]
    fake = (grid["label"] == "fake").to_numpy()
    assert swapped[fake].to_numpy() == pytest.approx(grid[UNCHANGED][fake].to_numpy(), abs=1e-5)
    assert (swapped[~fake] != grid[UNCHANGED][~fake]).all()
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


def test_a_model_that_learned_the_encoding_is_exposed_by_the_swap() -> None:
    """Scores of a model that calls every JPEG fake."""
    labels = ["real", "fake"] * 20
    fake = np.array([label == "fake" for label in labels])
    clean = np.where(fake, 3.0, -3.0)
    cells = {
        name: np.full(40, 3.0) if "JPEG" in name and change.only == ("real", "fake") else clean
        for name, change in CHANGES.items()
    }
    cells["reals as JPEG, fakes as PNG"] = np.full(40, 3.0)
    grid = pd.DataFrame({"path": labels, "label": labels, UNCHANGED: clean, **cells})
    metrics = {row["change"]: row for row in evaluate_grid(grid, UNCALIBRATED)}
    assert metrics[UNCHANGED]["accuracy"]["value"] == 1
    assert metrics["reals as JPEG, fakes as PNG"]["reals_flagged_rate"]["value"] == 1
    assert metrics["fakes as JPEG, reals as PNG"]["accuracy"]["value"] == 1
