"""Tests of whether a difference between two models may be chance."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, ttest_ind

from detector_core.evaluation.intervals import Flags

SIGNIFICANCE = 0.05
"""A difference with a larger p-value is within noise."""


def mcnemar(
    first: "pd.Series[bool] | Flags", second: "pd.Series[bool] | Flags", alternative: str = "two-sided"
) -> dict[str, Any]:
    """McNemar's exact test of two models on the same images.

    Args:
        first: whether the first model is correct on each image; ``second`` has the same order, or the same index.
        alternative: ``two-sided``, or ``greater`` to test whether the first model is better.

    Returns:
        ``only_first_correct``, ``only_second_correct`` and ``p_value``, which is 1 if they never differ.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    count = only_first + only_second
    p_value = float(binomtest(only_first, count, alternative=alternative).pvalue) if count else 1.0
    return {"only_first_correct": only_first, "only_second_correct": only_second, "p_value": p_value}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values adjusted for how many there are; None, a test that could not be made, stays and is not counted.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    highest = 0.0
    for rank, (p_value, index) in enumerate(tested):
        highest = max(highest, min(1.0, p_value * (len(tested) - rank)))
        adjusted[index] = highest
    return adjusted


def compare_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Welch's t-test of a metric over the seeds of two models; None with the reason if one has a single seed.

    Source: B. L. Welch, "The generalization of Student's problem when several different population variances are
    involved", 1947.
    """
    if min(len(first), len(second)) < 2:
        return {"p_value": None, "reason": "a test over seeds needs two or more of both models"}
    difference = statistics.mean(first) - statistics.mean(second)
    if statistics.pstdev(first) == statistics.pstdev(second) == 0:
        return {"difference": difference, "p_value": None, "reason": "all seeds of a model gave the same value"}
    return {"difference": difference, "p_value": float(ttest_ind(first, second, equal_var=False).pvalue)}


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every two of the names, in their order."""
    return list(itertools.combinations(names, 2))


def limit_at(real_logit_N: Any, share: float) -> tuple[float | None, str | None]:
    """The logit above which at most that share of the reals lies.

    Returns:
        The logit and None, or None and the reason why these reals cannot tell it.
    """
    reals = len(real_logit_N)
    if share * reals < 1 - 1e-9:
        return None, f"{100 * share:g}% of {reals:,} validation reals is less than one image"
    allowed = int(np.floor(share * reals + 1e-9))
    descending = np.sort(np.asarray(real_logit_N, dtype=np.float64))[::-1]
    return float(descending[allowed]), None
