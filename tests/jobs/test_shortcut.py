"""A planted shortcut from end to end: fakes differ from reals in nothing but how their JPEGs were saved."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core import labels
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.evaluation.calibration import choose
from detector_core.evaluation.robustness import SWAP_QUALITY, UNCHANGED, evaluate_grid, score_grid
from detector_core.evaluation.scoring import score
from detector_core.training.loop import fit
from detector_core.training.step import TrainState

SAVED = {"real": {"quality": 97, "subsampling": 0}, "fake": {"quality": SWAP_QUALITY, "subsampling": "4:2:0"}}


@pytest.mark.usefixtures("shared_ray")
def test_the_audit_warns_and_the_swapped_row_exposes_the_model(
    tmp_path: Path, tiny_spec: RunSpec, run_job: Any
) -> None:
    draw = np.random.default_rng(0)
    for split, count in {"train": 48, "valid": 24, "test": 24}.items():
        for label, how in SAVED.items():
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.normal(draw.uniform(90, 160, 3), 25, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG", **how)
                (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    prepared = run_job("prepare", tmp_path / "images", "--out", tmp_path / "dataset")
    warnings = prepared.result["warnings"]
    assert any("jpeg_quality" in warning for warning in warnings), warnings

    data = manifest.load(str(tmp_path / "dataset"))
    spec = tiny_spec.replace({"optim.epochs": 12, "augment.cutout": 0.0, "optim.schedule": "cosine"})
    state = TrainState(spec, data.fingerprint)
    for _ in fit(state, data):
        pass
    assert state.best_weights is not None
    state.network.load_state_dict(state.best_weights)
    valid, test = data.split("valid"), data.split("test")
    chosen = score(state.network, valid, data.root, spec.preprocess)
    thresholds = choose(labels.is_fake(valid["label"]), chosen["logit"].to_numpy(), chosen_on={"split": "valid"})
    grid = {
        row["change"]: row
        for row in evaluate_grid(score_grid(state.network, test, data.root, spec.preprocess), thresholds)
    }
    assert grid[UNCHANGED]["accuracy"]["value"] > 0.95
    swapped = grid["reals as JPEG, fakes as PNG"]
    assert swapped["reals_flagged_rate"]["value"] > 0.8
    assert swapped["auc"]["value"] < 0.7
