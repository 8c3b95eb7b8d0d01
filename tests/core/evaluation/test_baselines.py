"""Baselines find what is planted in the files, and nothing in files that are alike."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from PIL import Image

from detector_core.data.inspect import image_properties
from detector_core.data.manifest import Manifest
from detector_core.data.spectrum import RINGS, radial_spectrum
from detector_core.evaluation import baselines
from detector_core.evaluation.baselines import FILE_FACTS, MODEL, NO_DATA, SPECTRUM

NONE = np.zeros((0, 0))


def portrait(number: int, *, stripes: float, quality: int) -> bytes:
    """A smooth image with noise; stripes of four pixels are weak next to the noise."""
    draw = np.random.default_rng(number)
    small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC)) + draw.normal(0, 12, (64, 64, 1))
    pixels = pixels + stripes * np.cos(np.arange(64) * np.pi / 2)[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def data(*, stripes: float = 0.0, fake_quality: int = 90) -> Manifest:
    rows: list[dict[str, Any]] = []
    for number in range(120):
        fake = number % 2 == 1
        file = portrait(number, stripes=stripes * fake, quality=fake_quality if fake else 90)
        split = "train" if number < 80 else "test"
        rows.append(
            {"path": f"{number}", "label": "fake" if fake else "real", "split": split, **image_properties(file)}
        )
    return Manifest(root="", name="planted", generated=True, fingerprint="f", frame=pd.DataFrame(rows))


def evaluate(own: Manifest | None, rows: pd.DataFrame, scores: np.ndarray = NONE) -> dict[str, dict[str, Any]]:
    fitted = baselines.fit_baselines(own, rows, "other")
    models = {MODEL: scores} if scores.size else {}
    entries = baselines.evaluate_baselines(fitted, rows, models)
    json.dumps(entries, allow_nan=False)
    return {entry["name"]: entry for entry in entries}


def test_each_baseline_finds_what_is_planted_for_it() -> None:
    striped = data(stripes=3.0)
    found = evaluate(striped, striped.split("test"))
    assert found[SPECTRUM]["auc"]["value"] > 0.95
    assert 0.2 < found[FILE_FACTS]["auc"]["value"] < 0.85
    exported = data(fake_quality=60)
    found = evaluate(exported, exported.split("test"))
    assert found[FILE_FACTS]["auc"]["value"] == 1
    assert found[FILE_FACTS]["trained_on"] == "planted"


def test_a_model_is_measured_above_the_baseline_on_the_same_images() -> None:
    alike = data()
    rows = alike.split("test")
    is_fake = (rows["label"] == "fake").to_numpy()
    seeds = np.stack([is_fake + np.random.default_rng(seed).normal(0, 0.5, len(rows)) for seed in (1, 2)])
    entry = evaluate(alike, rows, seeds)[SPECTRUM]
    assert entry["auc"]["low"] < entry["auc"]["value"] < entry["auc"]["high"]
    mean = np.mean([sk.roc_auc_score(is_fake, scores) for scores in seeds])
    assert entry["above"][MODEL]["difference"] == pytest.approx(mean - entry["auc"]["value"])
    assert entry["above"][MODEL]["p_value"] < 0.05


def test_figures_that_cannot_be_had_are_none_with_the_reason() -> None:
    whole = data()
    rows = whole.split("test")
    assert evaluate(None, rows)[SPECTRUM]["auc"] == {"value": None, "reason": NO_DATA}
    assert evaluate(whole, rows.drop(columns="spectrum"))[SPECTRUM]["auc"]["reason"].startswith("other was prepared by")
    reals = rows[rows["label"] == "real"]
    assert evaluate(whole, reals, np.zeros(len(reals)))[FILE_FACTS] == {
        "name": FILE_FACTS,
        "trained_on": "planted",
        "above": {},
        "auc": {"value": None, "reason": "there are no fakes"},
    }


@pytest.mark.parametrize("shape", [(64, 64), (300, 280), (16, 40), (1, 1)])
def test_a_wave_has_its_power_in_the_ring_of_its_frequency(shape: tuple[int, int]) -> None:
    wave = 128 + 60 * np.cos(np.arange(shape[0]) * np.pi / 2)  # a period of 4 pixels: the middle of the rings
    image = np.broadcast_to(wave[:, None, None], (*shape, 3)).astype(np.uint8)
    spectrum = radial_spectrum(image)
    assert spectrum.shape == (RINGS,)
    assert np.isfinite(spectrum).all()
    if min(shape) >= 64:
        assert spectrum.argmax() in (RINGS // 2 - 1, RINGS // 2)
