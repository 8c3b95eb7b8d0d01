"""The parity gate: a faster precision is served only where it judges the validation images as the network did.

Every precision and torch in fp32, which is what was judged, see the same squares once. Its AUC may fall by at most
AUC_FALL and at most FLIPS of its verdicts, through the frozen calibration, may be others.
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
from detector_core.evaluation.scoring import batches
from detector_core.registry.engines import PRECISIONS, Engine

AUC_FALL, FLIPS = 0.002, 0.005
BATCH = 32
BASE = "torch fp32"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the gate found about one precision.

    Attributes:
        precision: its name; :data:`BASE` for what the others are held against.
        auc: on the validation split; None where a class is missing or it was not run.
        auc_fall: AUC of the base less this one's.
        flips: verdicts that are others than the base's, ``of`` so many images.
        images_per_s: of the network alone, decoding not counted.
        passed: None for the base, and where nothing was compared.
        reason: why not passed, or not compared.
    """

    precision: str
    auc: float | None = None
    auc_fall: float | None = None
    flips: int | None = None
    of: int = 0
    images_per_s: float | None = None
    passed: bool | None = None
    reason: str = ""


def run(
    engines: Mapping[str, Engine],
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    calibration: Calibration,
    progress: Callable[[int], object] | None = None,
) -> list[Row]:
    """Scores the rows with each engine and compares them with the one named :data:`BASE`.

    Raises:
        BadImage: an image that is gone or not whole; names the file.
    """
    logits, seconds = _logits(engines, rows, root, preprocess, progress)
    is_fake = labels.is_fake(rows["label"])
    base = logits[BASE]
    base_auc, base_verdicts = ranking(is_fake, base)["auc"].value, verdicts(calibration.p_fake(base), calibration)
    found = []
    for name, logit_N in logits.items():
        auc = ranking(is_fake, logit_N)["auc"].value if np.isfinite(logit_N).all() else None
        row = Row(
            precision=name,
            auc=auc,
            auc_fall=None if auc is None or base_auc is None else base_auc - auc,
            flips=int((verdicts(calibration.p_fake(logit_N), calibration) != base_verdicts).sum()),
            of=len(rows),
            images_per_s=len(rows) / seconds[name],
        )
        found.append(row if name == BASE else judged(row, finite=bool(np.isfinite(logit_N).all())))
    return found


def judged(row: Row, *, finite: bool = True) -> Row:
    """The row with ``passed`` and the reason why not."""
    reasons = [] if finite else ["it gives scores that are not finite"]
    if row.auc_fall is not None and row.auc_fall > AUC_FALL:
        reasons.append(f"AUC falls by {row.auc_fall:.4f}, {AUC_FALL} is allowed")
    if row.flips is not None and row.flips > allowed_flips(row.of):
        reasons.append(f"{row.flips} of {row.of} verdicts flip, {allowed_flips(row.of)} may ({FLIPS:.1%})")
    return Row(**{**vars(row), "passed": not reasons, "reason": "; ".join(reasons)})


def allowed_flips(images: int) -> int:
    """How many verdicts may flip; none below 200 images."""
    return math.floor(FLIPS * images)


def choose(table: Sequence[Row], asked: str, *, force: bool = False) -> str:
    """The precision to serve: for ``auto`` the fastest that passed, else the one asked for.

    Raises:
        OperationRefused: the one asked for did not pass and ``force`` is not given, or none did.
    """
    by_name = {row.precision: row for row in table}
    if asked == "auto":
        passed = [name for name in PRECISIONS if name in by_name and by_name[name].passed]
        if not passed:
            raise OperationRefused(f"no precision passes the parity gate: {_why_not(table)}")
        return passed[0]
    row = by_name[asked]
    if row.passed is False and not (force and row.flips is not None):
        raise OperationRefused(
            f"{asked} does not pass the parity gate: {row.reason}; --precision auto takes one that does"
            + (", --force takes it all the same" if row.flips is not None else "")
        )
    return asked


def _why_not(table: Sequence[Row]) -> str:
    return ", ".join(f"{row.precision} ({row.reason})" for row in table if row.passed is False)


def table_text(table: Sequence[Row], chosen: str) -> str:
    """The table for people; an arrow marks the chosen precision."""
    lines = [f"   {'precision':12}{'AUC':>8}{'flips':>12}{'images/s':>10}  parity gate"]
    for row in table:
        auc = "-" if row.auc is None else f"{row.auc:.4f}"
        flips = "-" if row.flips is None or row.passed is None else f"{row.flips} of {row.of}"
        speed = "-" if row.images_per_s is None else f"{row.images_per_s:.1f}"
        arrow = "->" if row.precision == chosen else ""
        lines.append(f"{arrow:3}{row.precision:12}{auc:>8}{flips:>12}{speed:>10}  {verdict(row)}")
    return "\n".join(lines)


def verdict(row: Row) -> str:
    """What the gate says, in words."""
    if row.precision == BASE:
        return "what was judged"
    return "passed" if row.passed else row.reason if row.passed is None else f"not passed: {row.reason}"


def small(images: int) -> str:
    """What to say where the split is too small for the share of flips; empty where it is not."""
    if allowed_flips(images):
        return ""
    return f"{FLIPS:.1%} of {images} validation images is less than one: no verdict may flip"


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
    for batch in batches(ImageDataset(rows, root, preprocess), BATCH, os.cpu_count() or 1):
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
