"""Metrics of each source of a data set: of each generator, and of each set of photographs.

A source with images of both classes is evaluated alone. A source of one class is ranked against all images of the other
class that training did not leave out, as in the tables of the field, where every generator has the same photographs
next to it.
"""

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from detector_core import labels
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.metrics import ERROR_RATES, Confusion, ranking
from detector_core.labels import FAKE, REAL

if TYPE_CHECKING:
    import pandas as pd

SOURCE_METRICS = (*ERROR_RATES, "accuracy", "auc", "average_precision")
"""The metrics of each source."""
_NEEDS = {"fakes_passed_rate": FAKE, "reals_flagged_rate": REAL, "auc": FAKE, "average_precision": FAKE}
"""The mean of a metric is over the sources with images of this class; that of any other metric is over all."""


def evaluate_sources(
    scores: "pd.DataFrame", calibration: Calibration, left_out: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """The ``sources`` of ``report.json``; None if all images are of one source.

    Args:
        scores: columns label, logit and source.
        left_out: sources that the model was trained without.

    Returns:
        ``rows``, one per source: its name, ``images`` of each class, ``left_out``, ``ranked_against`` (``own`` images,
        or ``all`` of the other class) and each of :data:`SOURCE_METRICS` at the frozen threshold; ``mean``, that of
        each metric over the sources (for ranking metrics and fakes passed over those with fakes) with their number;
        ``worst``, for both error rates the source with the highest, if there are several. Neither counts sources that
        were left out of the training.
    """
    names = sorted(scores["source"].unique())
    if len(names) < 2:
        return None
    rows = [_row(scores, name, calibration, left_out) for name in names]
    seen = [row for row in rows if not row["left_out"]]
    worst = {}
    for rate in ERROR_RATES:
        defined = [row for row in seen if row[rate]["value"] is not None]
        if len(defined) > 1:
            worst[rate] = max(defined, key=lambda row: row[rate]["value"])["source"]
    return {"rows": rows, "mean": {name: _mean(seen, name) for name in SOURCE_METRICS}, "worst": worst}


def _row(scores: "pd.DataFrame", source: str, calibration: Calibration, left_out: tuple[str, ...]) -> dict[str, Any]:
    own = (scores["source"] == source).to_numpy()
    is_fake, logit = labels.is_fake(scores["label"]), scores["logit"].to_numpy(dtype=np.float64)
    confusion = Confusion.from_scores(is_fake[own], calibration.p_fake(logit[own]), calibration.fake_above)
    ranked = own
    if not (confusion.reals and confusion.fakes):
        ranked = own | ((is_fake != bool(confusion.fakes)) & ~scores["source"].isin(left_out).to_numpy())
    estimates = confusion.metrics() | ranking(is_fake[ranked], logit[ranked])
    return {
        "source": source,
        "images": {REAL: confusion.reals, FAKE: confusion.fakes},
        "left_out": source in left_out,
        "ranked_against": "own" if ranked is own else "all",
        **{name: estimates[name].to_dict() for name in SOURCE_METRICS},
    }


def _mean(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The mean of a metric over the sources that have it; None with the reason if there is none."""
    label = _NEEDS.get(name)
    of = [row for row in rows if label is None or row["images"][label]]
    values = [row[name]["value"] for row in of if row[name]["value"] is not None]
    if not values:
        return {"value": None, "reason": f"no source has {label} images that define it"}
    return {"value": statistics.mean(values), "sources": len(values)}
