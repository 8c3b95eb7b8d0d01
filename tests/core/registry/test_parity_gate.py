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
    """A stand-in for a network."""
    return (pixels_BSSC.mean((1, 2, 3)).astype(np.float32) - 125) / 20


def test_each_engine_is_held_against_the_base_on_the_same_images(tiny_dataset: Path) -> None:
    data, seen = manifest.load(str(tiny_dataset)), []
    engines = {
        BASELINE: brightness,
        "fp32": lambda pixels: brightness(pixels) + 1e-6,
        "bf16": lambda pixels: -brightness(pixels),
        "int8": lambda pixels: brightness(pixels) * np.nan,
    }
    table = parity_gate.compare_precisions(engines, data.split("valid"), data.root, PREPROCESS, FROZEN, seen.append)
    base, same, turned, no_numbers = table
    assert sum(seen) == 16
    assert (base.passed, base.flips, base.images, base.auc_drop) == (None, 0, 16, 0.0)
    assert (same.passed, same.reason, same.flips, same.auc) == (True, "", 0, base.auc)
    assert base.auc is not None
    assert turned.auc == pytest.approx(1 - base.auc)
    assert turned.passed is False
    assert "of 16 verdicts flip, 0 may (0.5%)" in turned.reason
    assert (no_numbers.passed, no_numbers.auc) == (False, None)
    assert "not finite" in no_numbers.reason
    assert all(row.images_per_s and row.images_per_s > 0 for row in table)


def test_a_broken_or_missing_image_is_named(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    valid = data.split("valid")
    victim = Path(data.root) / valid["path"][2]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(BadImage, match=f"{victim}: .*damaged"):
        parity_gate.compare_precisions({BASELINE: brightness}, valid, data.root, PREPROCESS, FROZEN)
    victim.unlink()
    with pytest.raises(BadImage, match=f"{victim}: the file is gone"):
        parity_gate.compare_precisions({BASELINE: brightness}, valid, data.root, PREPROCESS, FROZEN)


def test_one_class_is_compared_by_its_verdicts_alone(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    rows = data.split("valid").query("label == 'real'")
    found = parity_gate.compare_precisions(
        {BASELINE: brightness, "fp32": brightness}, rows, data.root, PREPROCESS, FROZEN
    )[1]
    assert (found.auc, found.auc_drop, found.passed) == (None, None, True)


@pytest.mark.parametrize(
    ("fall", "flips", "of", "passed"),
    [
        (0.002, 5, 1000, True),
        (0.0021, 0, 1000, False),
        (0.0, 6, 1000, False),
        (-0.1, 0, 10, True),
        (0.0, 1, 199, False),
    ],
)
def test_the_limits(fall: float, flips: int, of: int, passed: bool) -> None:
    row = apply_limits(PrecisionResult(precision="int8", auc=0.9, auc_drop=fall, flips=flips, images=of))
    assert row.passed is passed
    assert bool(row.reason) is not passed


def test_a_small_split_is_said() -> None:
    assert max_flips(199) == 0
    assert parity_gate.small_split_warning(100) == "0.5% of 100 validation images is less than one: no verdict may flip"
    assert parity_gate.small_split_warning(200) == ""


def rows(**passed: bool) -> list[PrecisionResult]:
    """A table with figures."""
    found = {name: "" if ok else "9 of 100 verdicts flip" for name, ok in passed.items()}
    return [
        PrecisionResult(precision=name, passed=passed[name], reason=why, flips=9, images=100)
        for name, why in found.items()
    ]


def test_auto_takes_the_fastest_that_passes_and_a_name_is_refused_unless_forced() -> None:
    assert choose_precision(rows(fp32=True, bf16=True, int8=True), "auto") == "int8"
    assert choose_precision(rows(int8=False, bf16=True, fp32=True), "auto") == "bf16"
    assert choose_precision(rows(int8=False, bf16=False, fp32=True), "auto") == "fp32"
    with pytest.raises(OperationRefused, match=r"no precision passes.*int8 \(9 of 100 verdicts flip\)"):
        choose_precision(rows(int8=False, fp32=False), "auto")
    with pytest.raises(OperationRefused, match=r"int8 does not pass.*9 of 100 verdicts flip.*--force"):
        choose_precision(rows(int8=False, fp32=True), "int8")
    assert choose_precision(rows(int8=False, fp32=True), "int8", force=True) == "int8"
    with pytest.raises(OperationRefused, match="no bf16"):
        choose_precision([PrecisionResult(precision="bf16", passed=False, reason="no bf16")], "bf16", force=True)


def test_the_table_marks_what_is_served() -> None:
    table = [
        *rows(int8=False, fp32=True),
        PrecisionResult(precision=BASELINE, auc=0.9, images_per_s=10.0, flips=0, images=100),
    ]
    lines = parity_gate.format_table(table, "fp32").splitlines()
    assert "not passed: 9 of 100 verdicts flip" in lines[1]
    assert lines[2].startswith("-> fp32")
    assert lines[3].split() == ["torch", "fp32", "0.9000", "-", "10.0", "what", "was", "apply_limits"]
