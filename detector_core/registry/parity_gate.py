"""The parity gate: a faster precision is served only where it judges the validation images as the network did.

Every precision and torch in fp32, which is what was judged, see the same squares once. Its AUC may fall by at most
MAX_AUC_DROP and at most MAX_FLIP_RATE of its verdicts, through the frozen calibration, may be others.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core import labels
from detector_core.config import PreprocessSpec
from detector_core.data.loading import ImageDataset
from detector_core.errors import BadImage, OperationRefused
from detector_core.evaluation.calibration import Calibration, verdicts
from detector_core.evaluation.metrics import ranking
from detector_core.evaluation.scoring import load_batches
from detector_core.registry.engines import PRECISIONS, Engine

MAX_AUC_DROP, MAX_FLIP_RATE = 0.002, 0.005
BATCH = 32
BASELINE = "torch fp32"


@dataclass(frozen=True, kw_only=True)
class PrecisionResult:
    """What the gate found about one precision.

    Attributes:
        precision: its name; :data:`BASELINE` for what the others are held against.
        auc: on the validation split; None where a class is missing or it was not run.
        auc_drop: AUC of the base less this one's.
        flips: verdicts that are others than the base's, ``of`` so many images.
        images_per_s: of the network alone, decoding not counted.
        passed: None for the base, and where nothing was compared.
        reason: why not passed, or not compared.
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
    """Scores the rows with each engine and compares them with the one named :data:`BASELINE`.

    Raises:
        BadImage: an image that is gone or not whole; names the file.
    """
    logits, seconds = _logits(engines, rows, root, preprocess, progress)
    is_fake = labels.is_fake(rows["label"])
    base = logits[BASELINE]
    base_auc, base_verdicts = ranking(is_fake, base)["auc"].value, verdicts(calibration.p_fake(base), calibration)
    found = []
    for name, logit_N in logits.items():
        auc = ranking(is_fake, logit_N)["auc"].value if np.isfinite(logit_N).all() else None
        row = PrecisionResult(
            precision=name,
            auc=auc,
            auc_drop=None if auc is None or base_auc is None else base_auc - auc,
            flips=int((verdicts(calibration.p_fake(logit_N), calibration) != base_verdicts).sum()),
            images=len(rows),
            images_per_s=len(rows) / seconds[name],
        )
        found.append(row if name == BASELINE else apply_limits(row, finite=bool(np.isfinite(logit_N).all())))
    return found


def apply_limits(row: PrecisionResult, *, finite: bool = True) -> PrecisionResult:
    """The row with ``passed`` and the reason why not."""
    reasons = [] if finite else ["it gives scores that are not finite"]
    if row.auc_drop is not None and row.auc_drop > MAX_AUC_DROP:
        reasons.append(f"AUC falls by {row.auc_drop:.4f}, {MAX_AUC_DROP} is allowed")
    if row.flips is not None and row.flips > max_flips(row.images):
        reasons.append(f"{row.flips} of {row.images} verdicts flip, {max_flips(row.images)} may ({MAX_FLIP_RATE:.1%})")
    return PrecisionResult(**{**vars(row), "passed": not reasons, "reason": "; ".join(reasons)})


def max_flips(images: int) -> int:
    """How many verdicts may flip; none below 200 images."""
    return math.floor(MAX_FLIP_RATE * images)


def choose_precision(table: Sequence[PrecisionResult], requested_precision: str, *, force: bool = False) -> str:
    """The precision to serve: for ``auto`` the fastest that passed, else the one requested_precision for.

    Raises:
        OperationRefused: the one requested_precision for did not pass and ``force`` is not given, or none did.
    """
    by_name = {row.precision: row for row in table}
    if requested_precision == "auto":
        passed = [name for name in PRECISIONS if name in by_name and by_name[name].passed]
        if not passed:
            raise OperationRefused(f"no precision passes the parity gate: {_why_not(table)}")
        return passed[0]
    row = by_name[requested_precision]
    if row.passed is False and not (force and row.flips is not None):
        raise OperationRefused(
            f"{requested_precision} does not pass the parity gate: {row.reason}; --precision auto takes one that does"
            + (", --force takes it all the same" if row.flips is not None else "")
        )
    return requested_precision


def _why_not(table: Sequence[PrecisionResult]) -> str:
    return ", ".join(f"{row.precision} ({row.reason})" for row in table if row.passed is False)


def format_table(table: Sequence[PrecisionResult], chosen: str) -> str:
    """The table for people; an arrow marks the chosen precision."""
    lines = [f"   {'precision':12}{'AUC':>8}{'flips':>12}{'images/s':>10}  parity gate"]
    for row in table:
        auc = "-" if row.auc is None else f"{row.auc:.4f}"
        flips = "-" if row.flips is None or row.passed is None else f"{row.flips} of {row.images}"
        speed = "-" if row.images_per_s is None else f"{row.images_per_s:.1f}"
        arrow = "->" if row.precision == chosen else ""
        lines.append(f"{arrow:3}{row.precision:12}{auc:>8}{flips:>12}{speed:>10}  {describe_result(row)}")
    return "\n".join(lines)


def describe_result(row: PrecisionResult) -> str:
    """What the gate says, in words."""
    if row.precision == BASELINE:
        return "what was judged"
    return "passed" if row.passed else row.reason if row.passed is None else f"not passed: {row.reason}"


def small_split_warning(images: int) -> str:
    """What to say where the split is too small for the share of flips; empty where it is not."""
    if max_flips(images):
        return ""
    return f"{MAX_FLIP_RATE:.1%} of {images} validation images is less than one: no verdict may flip"


def _logits(
    engines: Mapping[str, Engine],
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    progress: Callable[[int], object] | None,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Logits and seconds by engine; each batch is decoded once."""
    parts: dict[str, list[Any]] = {name: [] for name in engines}
    seconds = dict.fromkeys(engines, 0.0)
    warm: set[int] = set()
    for batch in load_batches(ImageDataset(rows, root, preprocess), BATCH, os.cpu_count() or 1):
        if batch.broken:
            raise BadImage(batch.broken[0])
        pixels = batch.pixels_BSSC.numpy()
        for name, engine in engines.items():
            if len(pixels) not in warm:
                engine(pixels)  # the first pass of a size prepares it, which is no part of the speed
            started = time.perf_counter()
            parts[name].append(engine(pixels))
            seconds[name] += time.perf_counter() - started
        warm.add(len(pixels))
        if progress:
            progress(len(pixels))
    return {name: np.concatenate(part) for name, part in parts.items()}, seconds
