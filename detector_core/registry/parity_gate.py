"""The parity gate: a faster precision is served only if it agrees with the evaluated network on the validation images.

Every precision sees the same squares as the baseline, torch in fp32, which is what was evaluated. The ROC AUC of a
precision may be lower by at most MAX_AUC_DROP, and at most MAX_FLIP_RATE of its verdicts, through the frozen
calibration, may differ.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core import labels
from detector_core.config import PreprocessSpec
from detector_core.data.loading import ImageDataset
from detector_core.errors import BadImage, OperationRefused
from detector_core.evaluation.calibration import Calibration, verdicts
from detector_core.evaluation.metrics import ranking_values
from detector_core.evaluation.scoring import load_batches
from detector_core.registry.engines import PRECISIONS, Engine

MAX_AUC_DROP, MAX_FLIP_RATE = 0.002, 0.005
BATCH = 32
BASELINE = "torch fp32"


@dataclass(frozen=True, kw_only=True)
class PrecisionResult:
    """The comparison of one precision with the baseline.

    Attributes:
        precision: its name; :data:`BASELINE` for the baseline itself.
        auc: ROC AUC on the validation split; None if a class is missing or the precision did not run.
        auc_drop: AUC of the baseline minus this one.
        flips: number of verdicts that differ from the baseline's.
        images: number of images compared.
        images_per_s: throughput of the network alone, without decoding.
        passed: None for the baseline, and if nothing was compared.
        reason: why it did not pass, or was not compared.
    """

    precision: str
    auc: float | None = None
    auc_drop: float | None = None
    flips: int | None = None
    images: int = 0
    images_per_s: float | None = None
    passed: bool | None = None
    reason: str = ""


def compare_precisions(
    engines: Mapping[str, Engine],
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    calibration: Calibration,
    progress: Callable[[int], object] | None = None,
) -> list[PrecisionResult]:
    """Scores the images with each engine and compares it with the one named :data:`BASELINE`.

    Args:
        rows: the validation split.
        root: folder or URI that the paths are relative to.
        progress: called with the number of images after each batch.

    Raises:
        BadImage: an image is missing or damaged; names the file.
    """
    logits, seconds = _compute_logits(engines, rows, root, preprocess, progress)
    is_fake = labels.is_fake(rows["label"])
    baseline_auc = ranking_values(is_fake, logits[BASELINE])["auc"]
    baseline_verdicts = verdicts(calibration.p_fake(logits[BASELINE]), calibration)
    results = []
    for precision, logit_N in logits.items():
        finite = bool(np.isfinite(logit_N).all())
        auc = ranking_values(is_fake, logit_N)["auc"] if finite else None
        result = PrecisionResult(
            precision=precision,
            auc=auc,
            auc_drop=None if auc is None or baseline_auc is None else baseline_auc - auc,
            flips=int((verdicts(calibration.p_fake(logit_N), calibration) != baseline_verdicts).sum()),
            images=len(rows),
            images_per_s=len(rows) / seconds[precision],
        )
        results.append(result if precision == BASELINE else apply_limits(result, finite=finite))
    return results


def apply_limits(result: PrecisionResult, *, finite: bool = True) -> PrecisionResult:
    """The result with ``passed``, and the reasons if it did not pass."""
    reasons = [] if finite else ["it returns scores that are not finite"]
    if result.auc_drop is not None and result.auc_drop > MAX_AUC_DROP:
        reasons.append(f"AUC drops by {result.auc_drop:.4f}, the limit is {MAX_AUC_DROP}")
    if result.flips is not None and result.flips > max_flips(result.images):
        limit = f"{max_flips(result.images)} ({MAX_FLIP_RATE:.1%})"
        reasons.append(f"{result.flips} of {result.images} verdicts flip, the limit is {limit}")
    return replace(result, passed=not reasons, reason="; ".join(reasons))


def max_flips(images: int) -> int:
    """How many verdicts may differ; none for fewer than 200 images."""
    return math.floor(MAX_FLIP_RATE * images)


def choose_precision(results: Sequence[PrecisionResult], requested_precision: str, *, force: bool = False) -> str:
    """The precision to serve: for ``auto`` the fastest that passed, otherwise the requested one.

    Args:
        force: accept a requested precision that did not pass, if it was compared.

    Raises:
        OperationRefused: the requested precision did not pass, or none passed.
    """
    by_precision = {result.precision: result for result in results}
    if requested_precision == "auto":
        passed = [name for name in PRECISIONS if name in by_precision and by_precision[name].passed]
        if not passed:
            raise OperationRefused(f"no precision passes the parity gate: {_failures(results)}")
        return passed[0]
    result = by_precision[requested_precision]
    if result.passed is False and not (force and result.flips is not None):
        raise OperationRefused(
            f"{requested_precision} does not pass the parity gate: {result.reason}; --precision auto chooses one that "
            "does" + (", --force serves it anyway" if result.flips is not None else "")
        )
    return requested_precision


def _failures(results: Sequence[PrecisionResult]) -> str:
    return ", ".join(f"{result.precision} ({result.reason})" for result in results if result.passed is False)


def format_table(results: Sequence[PrecisionResult], chosen: str) -> str:
    """The results as a text table; an arrow marks the chosen precision."""
    lines = [f"   {'precision':12}{'ROC AUC':>8}{'flips':>12}{'images/s':>10}  parity gate"]
    for result in results:
        auc, flips, speed = format_cells(result)
        arrow = "->" if result.precision == chosen else ""
        lines.append(f"{arrow:3}{result.precision:12}{auc:>8}{flips:>12}{speed:>10}  {describe_result(result)}")
    return "\n".join(lines)


def format_cells(result: PrecisionResult) -> tuple[str, str, str]:
    """AUC, flips and images per second; "-" for those that were not measured."""
    auc = "-" if result.auc is None else f"{result.auc:.4f}"
    flips = "-" if result.flips is None or result.passed is None else f"{result.flips} of {result.images}"
    speed = "-" if result.images_per_s is None else f"{result.images_per_s:.1f}"
    return auc, flips, speed


def describe_result(result: PrecisionResult) -> str:
    """The decision of the gate, in words."""
    if result.precision == BASELINE:
        return "baseline: the network that was evaluated"
    return "passed" if result.passed else result.reason if result.passed is None else f"not passed: {result.reason}"


def small_split_warning(images: int) -> str:
    """A warning that the split is too small for the limit on flips; empty if it is large enough."""
    if max_flips(images):
        return ""
    return f"{MAX_FLIP_RATE:.1%} of {images} validation images is less than one image, so no verdict may flip"


def _compute_logits(
    engines: Mapping[str, Engine],
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    progress: Callable[[int], object] | None,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Logits and compute seconds by engine; each image is decoded once."""
    parts: dict[str, list[Any]] = {name: [] for name in engines}
    seconds = dict.fromkeys(engines, 0.0)
    warm_sizes: set[int] = set()
    for batch in load_batches(ImageDataset(rows, root, preprocess), BATCH, os.cpu_count() or 1):
        if batch.broken:
            raise BadImage(batch.broken[0])
        pixels = batch.pixels_BSSC.numpy()
        for name, engine in engines.items():
            if len(pixels) not in warm_sizes:
                engine(pixels)  # the first forward pass of a batch size is slower and is not measured
            started = time.perf_counter()
            parts[name].append(engine(pixels))
            seconds[name] += time.perf_counter() - started
        warm_sizes.add(len(pixels))
        if progress:
            progress(len(pixels))
    return {name: np.concatenate(part) for name, part in parts.items()}, seconds
