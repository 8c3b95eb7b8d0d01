"""95% confidence intervals and a paired test that hold where metrics of a detector come from few images.

* Proportions: Wilson; while they are still being counted, the mixture of Robbins, which may be looked at after every
  image.
* ROC AUC: DeLong, on the logit scale so that the interval stays within 0 to 1; Newcombe's method 5 where DeLong's
  variance is 0 or cannot be estimated (perfectly separated classes, a class of one image).
* Two ROC AUCs of the same images: DeLong's paired test; of several seeds, with the variance between them.
* Average precision, equal error rate and fakes caught at a fraction of reals flagged: a stratified bootstrap. Their
  threshold moves with the images, which an interval at a fixed threshold leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector_core.evaluation.ranking_curves import Curves

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 1000
SEED = 0
"""The bootstrap draws the same samples every time, so that the same scores give the same interval."""
_CELLS = 2_000_000
"""Largest number of (bootstrap sample, threshold) pairs in memory at a time."""

Flags = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Interval = tuple[float, float]


def wilson_interval(count: int, of: int) -> Interval:
    """The interval of the proportion ``count / of``; ``of`` is at least 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def anytime_interval(count: int, of: int) -> Interval:
    """The interval of the proportion ``count / of`` while both are growing; (0, 1) without an image.

    It holds for all looks together: the true proportion is in every interval that is computed along the way with a
    probability of 95%. Wilson's interval holds for one look, and would sooner or later exclude any proportion.

    Source: H. Robbins, "Statistical methods related to the law of the iterated logarithm", 1970, section 3, with a
    uniform mixture over the proportion.
    """
    from scipy.optimize import brentq
    from scipy.special import betaln

    if not of:
        return 0.0, 1.0
    least, most = np.finfo(float).tiny, 1 - np.finfo(float).eps
    observed = min(max(count / of, least), most)
    mixture = betaln(count + 1, of - count + 1) + np.log(1 - CONFIDENCE)

    def excess(proportion: float) -> float:
        """Above 0 for a proportion that the counts exclude."""
        return float(mixture - count * np.log(proportion) - (of - count) * np.log1p(-proportion))

    low = brentq(excess, least, observed) if count else 0.0
    high = brentq(excess, observed, most) if count < of else 1.0
    return float(low), float(high)


def images_to_bound(share: float) -> int:
    """How many images, none of which has a property, bound its share to the given one: Wilson's upper bound of 0."""
    return int(np.ceil(_z() ** 2 * (1 - share) / share))


def auc(is_fake_N: Flags, score_N: Scores) -> float:
    """The ROC AUC with fake as the positive class; both classes need an image."""
    return float(_placements(is_fake_N, score_N)[0].mean())


def auc_interval(is_fake_N: Flags, score_N: Scores) -> Interval:
    """The interval of the ROC AUC; both classes need an image.

    Source: E. R. DeLong et al., "Comparing the areas under two or more correlated receiver operating characteristic
    curves: a nonparametric approach", 1988; on the logit scale as M. S. Pepe, "The statistical evaluation of medical
    tests for classification and prediction", 2003, section 5.2.
    """
    from scipy.special import expit, logit

    of_fakes, of_reals = _placements(is_fake_N, score_N)
    value, deviation = float(of_fakes.mean()), _standard_error(of_fakes, of_reals)
    if not 0 < value < 1 or deviation == 0:
        return _newcombe_interval(value, len(of_fakes), len(of_reals))
    half = _z() * deviation / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference between two models on the same images, and its test.

    ``low``, ``high`` and ``p_value`` are None, with a ``reason``, where the images give the test no variance.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set; ``p_value`` always."""
        return {name: value for name, value in vars(self).items() if value is not None or name == "p_value"}


def compare_aucs(is_fake_N: Flags, first_SN: Scores, second_SN: Scores) -> Difference:
    """Tests whether two models differ in mean ROC AUC over their seeds on the same images, two-sided.

    With one seed of each this is DeLong's paired test. With more, DeLong's components are averaged over the seeds, and
    the variance between the seeds is added (:func:`compare_means`).

    Args:
        is_fake_N: both classes need an image.
        first_SN: the scores of the first model, one row per seed; shape (N,) for one seed.
        second_SN: those of the second, which may have another number of seeds.

    Returns:
        ``difference``, the mean AUC of the first minus that of the second, its interval, and the p-value; 1 if both
        order the images alike.

    Source: DeLong et al., see :func:`auc_interval`.
    """
    first, second = (
        [_placements(is_fake_N, score_N) for score_N in np.atleast_2d(score_SN)] for score_SN in (first_SN, second_SN)
    )
    of_fakes, of_reals = (
        np.mean([seed[part] for seed in first], axis=0) - np.mean([seed[part] for seed in second], axis=0)
        for part in (0, 1)
    )
    aucs = [[float(seed[0].mean()) for seed in model] for model in (first, second)]
    if not of_fakes.any() and not of_reals.any():
        return _NO_DIFFERENCE
    return compare_means(*aucs, image_variance=_standard_error(of_fakes, of_reals) ** 2)


def compare_means(first: Sequence[float], second: Sequence[float], *, image_variance: float) -> Difference:
    """Tests a difference between two means over seeds that also vary with the choice of images, two-sided.

    The variance is that of the images plus that of both means over their seeds, with the degrees of freedom of Welch
    and Satterthwaite. A model with one seed is taken to vary as much as the other; if both have one, the test says
    nothing about another training.

    Args:
        first: the metric of each seed of the first model.
        second: that of each seed of the second.
        image_variance: of the difference of the means, for given seeds.

    Source: F. E. Satterthwaite, "An approximate distribution of estimates of variance components", 1946.
    """
    from scipy.stats import t

    difference = float(np.mean(first) - np.mean(second))
    spread = [(float(np.var(values, ddof=1)), len(values) - 1) for values in (first, second) if len(values) > 1]
    of_seeds = [
        (variance / len(values), freedom)
        for values in (first, second)
        if spread
        for variance, freedom in [(float(np.var(values, ddof=1)), len(values) - 1) if len(values) > 1 else spread[0]]
    ]
    total = image_variance + sum(variance for variance, _ in of_seeds)
    if total == 0:
        reason = "these images are too few or too alike to test a difference"
        return Difference(difference=difference, reason=reason) if difference else _NO_DIFFERENCE
    inverse_freedom = sum((variance / total) ** 2 / freedom for variance, freedom in of_seeds)
    freedom = 1 / inverse_freedom if inverse_freedom else np.inf
    deviation = float(np.sqrt(total))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * deviation
    p_value = float(2 * t.sf(abs(difference) / deviation, freedom))
    return Difference(difference=difference, low=difference - half, high=difference + half, p_value=p_value)


_NO_DIFFERENCE = Difference(difference=0.0, low=0.0, high=0.0, p_value=1.0)


def bootstrap_intervals(is_fake_N: Flags, score_N: Scores, rates: tuple[float, ...]) -> dict[str, Interval]:
    """Percentile intervals of the values of :meth:`Curves.values`, except the AUC; both classes need an image.

    Reals and fakes are drawn separately, as many as there are, with replacement (B. Efron and R. Tibshirani, "An
    introduction to the bootstrap", 1993). A threshold is chosen anew on each sample, so the interval contains the
    uncertainty of the threshold.
    """
    group_N = np.unique(score_N, return_inverse=True)[1].astype(np.int64)
    group_N = group_N.max() - group_N  # the highest score first
    groups = int(group_N.max()) + 1
    rng = np.random.default_rng(SEED)
    batch = max(1, min(BOOTSTRAP_SAMPLES, _CELLS // groups))
    parts = []
    for start in range(0, BOOTSTRAP_SAMPLES, batch):
        samples = min(batch, BOOTSTRAP_SAMPLES - start)
        reals, fakes = (_resample(np.sort(group_N[of]), groups, samples, rng) for of in (~is_fake_N, is_fake_N))
        parts.append(Curves(reals, fakes).values(rates))
    tail = (1 - CONFIDENCE) / 2
    intervals = {}
    for name in parts[0]:
        low, high = np.quantile(np.concatenate([part[name] for part in parts]), (tail, 1 - tail))
        intervals[name] = float(low), float(high)
    return intervals


def _resample(group_M: NDArray[np.int64], groups: int, samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each group occurs in each sample of one class, int64 of shape (samples, groups)."""
    drawn = group_M[rng.integers(0, len(group_M), (samples, len(group_M)))] + groups * np.arange(samples)[:, None]
    return np.bincount(drawn.ravel(), minlength=samples * groups).reshape(samples, groups)


def _placements(is_fake_N: Flags, score_N: Scores) -> tuple[Floats, Floats]:
    """The fraction of reals below each fake, and of fakes above each real; ties count half.

    The mean of either is the ROC AUC, and their variances are DeLong's (1988) structural components.
    """
    from scipy.stats import rankdata

    fake, real = score_N[is_fake_N], score_N[~is_fake_N]
    rank_N = rankdata(np.concatenate([fake, real]))
    of_fakes = (rank_N[: len(fake)] - rankdata(fake)) / len(real)
    of_reals = 1 - (rank_N[len(fake) :] - rankdata(real)) / len(fake)
    return of_fakes, of_reals


def _standard_error(of_fakes: Floats, of_reals: Floats) -> float:
    """DeLong's standard error of the mean placement; 0 if a class has a single image."""
    if min(len(of_fakes), len(of_reals)) < 2:
        return 0.0
    return float(np.sqrt(of_fakes.var(ddof=1) / len(of_fakes) + of_reals.var(ddof=1) / len(of_reals)))


def _newcombe_interval(value: float, fakes: int, reals: int) -> Interval:
    """The interval of an AUC from its value alone; not empty where the value is 0 or 1.

    Source: R. G. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic.
    Part 2", 2006, method 5.
    """
    from scipy.optimize import brentq

    more, tiny = (fakes + reals) / 2 - 1, 1e-12

    def lower(of: float) -> float:
        """The AUC below ``of`` that lies 1.96 of its own standard errors away from it."""
        if of <= tiny:
            return 0.0

        def distance(a: float) -> float:
            variance = a * (1 - a) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a)) / (fakes * reals)
            return float(of - a - _z() * np.sqrt(variance))

        return float(brentq(distance, 0.0, min(of, 1 - tiny)))

    return lower(value), 1 - lower(1 - value)


def _z() -> float:
    """The quantile of the normal distribution of a two-sided 95% interval: 1.96."""
    from scipy.stats import norm

    return float(norm.ppf((1 + CONFIDENCE) / 2))
