from pathlib import Path

import numpy as np
import pytest

from detector_core.config import PreprocessSpec
from detector_core.data import manifest
from detector_core.errors import BadImage, OperationRefused
from detector_core.evaluation.calibration import Calibration
from detector_core.images.decode import Pixels
from detector_core.registry import parity_gate
from detector_core.registry.parity_gate import BASELINE, PrecisionResult, apply_limits, choose_precision, max_flips

PREPROCESS = PreprocessSpec(image_size=32)
FROZEN = Calibration(real_below=0.4, fake_above=0.6)


def brightness(pixels_BSSC: Pixels) -> np.ndarray:
    """Stands in for a network."""
    return (pixels_BSSC.mean((1, 2, 3)).astype(np.float32) - 125) / 20


def test_each_engine_is_compared_with_the_baseline_on_the_same_images(tiny_dataset: Path) -> None:
    data, progress = manifest.load(str(tiny_dataset)), []
    engines = {
        BASELINE: brightness,
        "fp32": lambda pixels: brightness(pixels) + 1e-6,
        "bf16": lambda pixels: -brightness(pixels),
        "int8": lambda pixels: brightness(pixels) * np.nan,
    }
    results = parity_gate.compare_precisions(
        engines, data.split("valid"), data.root, PREPROCESS, FROZEN, progress.append
    )
    baseline, same, inverted, not_finite = results
    assert sum(progress) == 16
    assert (baseline.passed, baseline.flips, baseline.images, baseline.auc_drop) == (None, 0, 16, 0.0)
    assert (same.passed, same.reason, same.flips, same.auc) == (True, "", 0, baseline.auc)
    assert baseline.auc is not None
    assert inverted.auc == pytest.approx(1 - baseline.auc)
    assert inverted.passed is False
    assert "of 16 verdicts flip, the limit is 0 (0.5%)" in inverted.reason
    assert (not_finite.passed, not_finite.auc) == (False, None)
    assert "not finite" in not_finite.reason
    assert all(result.images_per_s and result.images_per_s > 0 for result in results)


def test_a_damaged_or_missing_image_is_named(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    valid = data.split("valid")
    victim = Path(data.root) / valid["path"][2]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(BadImage, match=f"{victim}: .*damaged"):
        parity_gate.compare_precisions({BASELINE: brightness}, valid, data.root, PREPROCESS, FROZEN)
    victim.unlink()
    with pytest.raises(BadImage, match=f"{victim}: the file does not exist"):
        parity_gate.compare_precisions({BASELINE: brightness}, valid, data.root, PREPROCESS, FROZEN)


def test_with_one_class_only_the_verdicts_are_compared(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    rows = data.split("valid").query("label == 'real'")
    result = parity_gate.compare_precisions(
        {BASELINE: brightness, "fp32": brightness}, rows, data.root, PREPROCESS, FROZEN
    )[1]
    assert (result.auc, result.auc_drop, result.passed) == (None, None, True)


@pytest.mark.parametrize(
    ("auc_drop", "flips", "images", "passed"),
    [
        (0.002, 5, 1000, True),
        (0.0021, 0, 1000, False),
        (0.0, 6, 1000, False),
        (-0.1, 0, 10, True),
        (0.0, 1, 199, False),
    ],
)
def test_a_precision_passes_within_the_limits(auc_drop: float, flips: int, images: int, passed: bool) -> None:
    result = PrecisionResult(precision="int8", auc=0.9, auc_drop=auc_drop, flips=flips, images=images)
    limited = apply_limits(result)
    assert limited.passed is passed
    assert bool(limited.reason) is not passed


def test_a_small_split_is_a_warning() -> None:
    assert max_flips(199) == 0
    assert "100 validation images is less than one image, so no verdict may flip" in parity_gate.small_split_warning(
        100
    )
    assert parity_gate.small_split_warning(200) == ""


def results(**passed: bool) -> list[PrecisionResult]:
    """Results of precisions that did or did not pass."""
    reasons = {name: "" if ok else "9 of 100 verdicts flip" for name, ok in passed.items()}
    return [
        PrecisionResult(precision=name, passed=passed[name], reason=reason, flips=9, images=100)
        for name, reason in reasons.items()
    ]


def test_auto_chooses_the_fastest_that_passes_and_a_requested_one_must_pass_or_be_forced() -> None:
    assert choose_precision(results(fp32=True, bf16=True, int8=True), "auto") == "int8"
    assert choose_precision(results(int8=False, bf16=True, fp32=True), "auto") == "bf16"
    assert choose_precision(results(int8=False, bf16=False, fp32=True), "auto") == "fp32"
    with pytest.raises(OperationRefused, match=r"no precision passes.*int8 \(9 of 100 verdicts flip\)"):
        choose_precision(results(int8=False, fp32=False), "auto")
    with pytest.raises(OperationRefused, match=r"int8 does not pass.*9 of 100 verdicts flip.*--force"):
        choose_precision(results(int8=False, fp32=True), "int8")
    assert choose_precision(results(int8=False, fp32=True), "int8", force=True) == "int8"
    with pytest.raises(OperationRefused, match="no bf16"):
        choose_precision([PrecisionResult(precision="bf16", passed=False, reason="no bf16")], "bf16", force=True)


def test_the_table_marks_the_chosen_precision() -> None:
    table = [
        *results(int8=False, fp32=True),
        PrecisionResult(precision=BASELINE, auc=0.9, images_per_s=10.0, flips=0, images=100),
    ]
    lines = parity_gate.format_table(table, "fp32").splitlines()
    assert "not passed: 9 of 100 verdicts flip" in lines[1]
    assert lines[2].startswith("-> fp32")
    assert lines[3].split() == [
        "torch",
        "fp32",
        "0.9000",
        "-",
        "10.0",
        "baseline:",
        "the",
        "network",
        "that",
        "was",
        "evaluated",
    ]
