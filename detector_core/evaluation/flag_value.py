"""What a flag is worth: of 100 flagged images, how many are fake, at different shares of fakes.

Error rates alone do not say it. Where one image in 2,000 is fake, a model that flags one real in 20 flags a hundred
reals for each fake.
"""

from typing import Any

import numpy as np

from detector_core.evaluation.intervals import CONFIDENCE
from detector_core.evaluation.metrics import NO_FAKES, NO_REALS, Confusion, Estimate

ONE_IN = (2000, 100, 10, 2)
"""One image in so many is fake."""
_DRAWS = 20_000


def flag_values(reals_flagged: int, reals: int, fakes_caught: int, fakes: int) -> list[dict[str, Any]]:
    """The fraction of flags that are right (the precision of the verdict fake) at each of :data:`ONE_IN`.

    By Bayes' theorem from the two rates of a test split. The interval has the uncertainty of both: percentiles over
    draws of both rates from their Jeffreys posteriors, which also hold where no real, or every fake, was flagged.

    Args:
        reals_flagged: of the ``reals``.
        fakes_caught: how many of the ``fakes`` were flagged.

    Returns:
        One entry per share: ``one_in``, ``share_of_fakes`` and ``right``, an estimate as a dict.

    Source: L. Brown et al., "Interval estimation for a binomial proportion", 2001, for the posteriors.
    """
    reason = NO_REALS if not reals else NO_FAKES if not fakes else None
    if reason is None and not (reals_flagged or fakes_caught):
        reason = "no image was flagged"
    if reason:
        return [_entry(one_in, Estimate(reason=reason)) for one_in in ONE_IN]
    rng = np.random.default_rng(0)
    flagged_D = rng.beta(reals_flagged + 0.5, reals - reals_flagged + 0.5, _DRAWS)
    caught_D = rng.beta(fakes_caught + 0.5, fakes - fakes_caught + 0.5, _DRAWS)
    tail = (1 - CONFIDENCE) / 2
    entries = []
    for one_in in ONE_IN:
        value = _right(fakes_caught / fakes, reals_flagged / reals, 1 / one_in)
        low, high = np.quantile(_right(caught_D, flagged_D, 1 / one_in), (tail, 1 - tail))
        entries.append(_entry(one_in, Estimate(value=value, low=min(float(low), value), high=max(float(high), value))))
    return entries


def of_confusion(confusion: Confusion) -> list[dict[str, Any]]:
    """:func:`flag_values` of a confusion matrix."""
    return flag_values(confusion.reals_flagged, confusion.reals, confusion.fakes_caught, confusion.fakes)


def of_report(report: dict[str, Any]) -> list[dict[str, Any]]:
    """:func:`flag_values` of a ``report.json``, also of one that was made before it had them; empty without counts."""
    if "confusion" not in report:
        return []
    return of_confusion(Confusion(**report["confusion"]))


def _right(caught: Any, flagged: Any, share: float) -> Any:
    """The share of fakes among what is flagged."""
    return share * caught / (share * caught + (1 - share) * flagged)


def _entry(one_in: int, right: Estimate) -> dict[str, Any]:
    return {"one_in": one_in, "share_of_fakes": 1 / one_in, "right": right.to_dict()}


def describe(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """For each share, in words: where it applies, and how many of 100 flags are right."""
    return [
        (
            f"1 image in {entry['one_in']:,} is fake",
            short(right) + (" of 100 flags" if right["value"] is not None else ""),
        )
        for entry in entries
        for right in (entry["right"],)
    ]


def short(right: dict[str, Any]) -> str:
    """``42 (20-71)``: how many of 100 flags are right, with the interval; or the reason why it is undefined."""
    if right["value"] is None:
        return f"undefined: {right['reason']}"
    return f"{_of_100(right['value'])} ({_of_100(right['low'])}-{_of_100(right['high'])})"


def _of_100(fraction: float) -> str:
    """A fraction as a number out of 100, with a digit after the point where it is below 10 or above 99."""
    percent = 100 * fraction
    return f"{percent:.1f}" if (percent < 9.95 or 98.95 < percent < 100) else f"{percent:.0f}"
