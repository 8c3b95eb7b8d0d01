"""Metrics of a real/fake detector: confusion matrix, proportions with intervals, ranking and calibration error.

The confusion matrix and its metrics follow the paper (section IV): positive = real. Ranking metrics (ROC AUC, average
precision, ROC) rank by the score of *fake*, so in them a fake is what is detected and a flagged real is a false alarm.
All values are fractions. A metric that is not defined (e.g. because a class is missing) is None with a reason, never 0
or NaN.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector_core.evaluation import intervals
from detector_core.evaluation.intervals import Flags, Interval, Scores, wilson_interval
from detector_core.evaluation.ranking_curves import Curves

FLAGGED_RATES = (0.005, 0.01)
"""Fractions of reals flagged at which the fraction of fakes caught is reported (TPR@FPR with fake as positive)."""
BINS = 15
"""Equal-width bins of the expected calibration error."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The value of a metric with its 95% confidence interval, or None with the reason why it is not defined.

    A value without an interval has a reason, too, if these images cannot give it one. ``count`` out of ``of`` images
    gave the value; both are None if the metric is not a plain proportion.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    of: int | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set; ``value`` always."""
        return {name: value for name, value in vars(self).items() if value is not None or name == "value"}


def proportion(count: int, of: int, reason: str) -> Estimate:
    """``count / of`` with its Wilson interval; None with the ``reason`` if ``of`` is 0."""
    if of == 0:
        return Estimate(reason=reason)
    low, high = wilson_interval(count, of)
    return Estimate(value=count / of, low=low, high=high, count=count, of=of)


NO_IMAGES, NO_REALS, NO_FAKES = "there are no images", "there are no reals", "there are no fakes"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The confusion matrix in the paper's convention (positive = real).

    Attributes:
        reals_passed: reals called real (true positives).
        fakes_passed: fakes called real (false positives).
        reals_flagged: reals called fake (false negatives).
        fakes_caught: fakes called fake (true negatives).
    """

    reals_passed: int
    fakes_passed: int
    reals_flagged: int
    fakes_caught: int

    @classmethod
    def from_scores(cls, is_fake_N: Flags, p_fake_N: Scores, threshold: float) -> "Confusion":
        """Counts the images; an image is called fake if ``p_fake >= threshold``."""
        called_fake_N = p_fake_N >= threshold
        return cls(
            reals_passed=int((~is_fake_N & ~called_fake_N).sum()),
            fakes_passed=int((is_fake_N & ~called_fake_N).sum()),
            reals_flagged=int((~is_fake_N & called_fake_N).sum()),
            fakes_caught=int((is_fake_N & called_fake_N).sum()),
        )

    @property
    def reals(self) -> int:
        """Number of real images."""
        return self.reals_passed + self.reals_flagged

    @property
    def fakes(self) -> int:
        """Number of fake images."""
        return self.fakes_passed + self.fakes_caught

    @property
    def accuracy(self) -> Estimate:
        """Fraction of all images that are classified correctly."""
        return proportion(self.reals_passed + self.fakes_caught, self.reals + self.fakes, NO_IMAGES)

    @property
    def sensitivity(self) -> Estimate:
        """Fraction of the reals that are called real (recall, TPR)."""
        return proportion(self.reals_passed, self.reals, NO_REALS)

    @property
    def specificity(self) -> Estimate:
        """Fraction of the fakes that are called fake (TNR)."""
        return proportion(self.fakes_caught, self.fakes, NO_FAKES)

    @property
    def fakes_passed_rate(self) -> Estimate:
        """Fraction of the fakes that are called real: the paper's false positive rate (FPR; APCER in ISO 30107-3)."""
        return proportion(self.fakes_passed, self.fakes, NO_FAKES)

    @property
    def reals_flagged_rate(self) -> Estimate:
        """Fraction of the reals that are called fake: the false negative rate (FNR; BPCER in ISO 30107-3)."""
        return proportion(self.reals_flagged, self.reals, NO_REALS)

    @property
    def precision(self) -> Estimate:
        """Fraction of the images called real that are real; needs both classes, since one alone makes it 0 or 1."""
        if reason := undefined_reason(self.reals, self.fakes):
            return Estimate(reason=reason)
        return proportion(self.reals_passed, self.reals_passed + self.fakes_passed, "no image was called real")

    @property
    def f1(self) -> Estimate:
        """Harmonic mean of precision and sensitivity; needs both classes.

        F1 is not a proportion itself but a function of one: F1 = 2J / (1 + J), where J is the Jaccard index, the reals
        passed out of all images that are real or were called real. Its interval is J's Wilson interval, transformed.
        """
        if reason := undefined_reason(self.reals, self.fakes):
            return Estimate(reason=reason)
        low, high = wilson_interval(self.reals_passed, self.reals + self.fakes_passed)
        jaccard = self.reals_passed / (self.reals + self.fakes_passed)
        value, low, high = (2 * j / (1 + j) for j in (jaccard, low, high))
        return Estimate(value=value, low=low, high=high)

    def metrics(self) -> dict[str, Estimate]:
        """All of :data:`METRICS`: those of Table V, and both error rates."""
        return {name: getattr(self, name) for name in METRICS}


METRICS = {
    "accuracy": "accuracy",
    "f1": "F1 (real)",
    "precision": "precision (real)",
    "specificity": "specificity (fakes caught)",
    "sensitivity": "sensitivity (reals passed)",
    "fakes_passed_rate": "fakes passed (paper's FPR, APCER)",
    "reals_flagged_rate": "reals flagged (paper's FNR, BPCER)",
}
"""The metrics of a Confusion in the order of Table V, and their labels wherever they are shown."""
ERROR_RATES = ("fakes_passed_rate", "reals_flagged_rate")
"""Shown wherever metrics are shown; the first is the more serious error."""
RANKING_METRICS = {
    "auc": "ROC AUC",
    "average_precision": "average precision (fake)",
    "eer": "equal error rate (EER)",
    **{
        f"fakes_caught_at_{rate:g}": f"fakes caught at {100 * rate:g}% reals flagged (TPR@FPR={100 * rate:g}%)"
        for rate in FLAGGED_RATES
    },
}
"""The metrics of :func:`ranking`, and their labels; fake is the positive class."""
DECIMALS = ("auc", "average_precision")
"""Shown with four decimals; every other metric is shown in percent."""
ROBUSTNESS_METRICS = ("auc", "fakes_caught_at_0.01", "accuracy", *ERROR_RATES)
"""The metrics of each row of the robustness grid."""


def short_label(name: str) -> str:
    """The label of a metric without the part in brackets, for column headers."""
    return (METRICS | RANKING_METRICS)[name].partition(" (")[0]


def undefined_reason(reals: int, fakes: int) -> str | None:
    """The reason why a metric that needs both classes is not defined; None if both have images."""
    if reals and fakes:
        return None
    return NO_IMAGES if not reals and not fakes else NO_FAKES if reals else NO_REALS


def ranking_values(is_fake_N: Flags, score_N: Scores) -> dict[str, float | None]:
    """The values of :func:`ranking` without their intervals, which take far longer; None if a class is missing.

    Fakes caught at a fraction of the reals that is less than one real are those above all reals.
    """
    if undefined_reason(int((~is_fake_N).sum()), int(is_fake_N.sum())):
        return dict.fromkeys(RANKING_METRICS)
    values = Curves.of(is_fake_N, score_N).values(FLAGGED_RATES)
    return {"auc": intervals.auc(is_fake_N, score_N), **{name: float(value[0]) for name, value in values.items()}}


def ranking(is_fake_N: Flags, score_N: Scores) -> dict[str, Estimate]:
    """How well the score of fake orders the images, independent of any threshold.

    Returns:
        ``auc``; ``average_precision`` with fake as the detected class; ``eer``, the error rate at the threshold where
        reals flagged equal fakes passed; and, for each F of :data:`FLAGGED_RATES`, ``fakes_caught_at_F``, the largest
        fraction of fakes caught by a threshold that flags at most the fraction F of these reals. The last is undefined
        with fewer than 1 / F reals. :mod:`~detector_core.evaluation.intervals` says where the intervals come from.
    """
    fakes = int(is_fake_N.sum())
    reals = len(is_fake_N) - fakes
    values, reason = ranking_values(is_fake_N, score_N), undefined_reason(reals, fakes)
    if reason:
        return dict.fromkeys(RANKING_METRICS, Estimate(reason=reason))
    bounds = {"auc": intervals.auc_interval(is_fake_N, score_N)}
    bounds |= intervals.bootstrap_intervals(is_fake_N, score_N, FLAGGED_RATES)
    estimates = {name: _with_interval(value, bounds[name]) for name, value in values.items() if value is not None}
    for rate in FLAGGED_RATES:
        name = f"fakes_caught_at_{rate:g}"
        estimates[name] = _fakes_caught(estimates[name], rate, reals, fakes)
    return estimates


def _with_interval(value: float, interval: Interval) -> Estimate:
    """The estimate of a bootstrap, which has no interval if every sample gave the same value."""
    low, high = interval
    if low == high:
        return Estimate(value=value, reason="no interval, as all bootstrap samples agree")
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _fakes_caught(bootstrap: Estimate, rate: float, reals: int, fakes: int) -> Estimate:
    """Fakes caught at a fraction of reals flagged, as a count and with an interval that is no narrower than Wilson's.

    The bootstrap has the uncertainty of the threshold; where it has none of the fakes, because all are above all reals,
    Wilson's interval has it.
    """
    if rate * reals < 1 - 1e-9:
        needed = int(np.ceil(1 / rate - 1e-9))
        return Estimate(reason=f"{100 * rate:g}% of {reals:,} reals is less than one image, at least {needed:,} needed")
    count = round((bootstrap.value or 0) * fakes)
    estimate = proportion(count, fakes, NO_FAKES)
    bounds = [bound for each in (estimate, bootstrap) for bound in (each.low, each.high) if bound is not None]
    return replace(estimate, low=min(bounds), high=max(bounds))


def det_curve(is_fake_N: Flags, score_N: Scores) -> dict[str, list[float]]:
    """The detection error tradeoff: ``reals_flagged_rate`` rises and ``fakes_passed_rate`` falls over the thresholds.

    The ROC curve is ``reals_flagged_rate`` against 1 - ``fakes_passed_rate``. Empty lists if a class is missing.
    """
    if len(np.unique(is_fake_N)) < 2:
        return {"reals_flagged_rate": [], "fakes_passed_rate": []}
    from sklearn.metrics import roc_curve

    flagged, caught, _ = roc_curve(is_fake_N, score_N)
    return {"reals_flagged_rate": flagged.tolist(), "fakes_passed_rate": (1 - caught).tolist()}


def brier_score(is_fake_N: Flags, p_fake_N: Scores) -> float:
    """Mean squared error of ``p_fake``; a constant 0.5 scores 0.25."""
    return float(np.mean((p_fake_N - is_fake_N) ** 2))


def reliability(is_fake_N: Flags, p_fake_N: Scores, bins: int = BINS) -> dict[str, list[Any]]:
    """The reliability diagram: the predicted and the observed fraction of fakes in equal-width bins of ``p_fake``.

    Returns:
        One value for each bin that is not empty: ``images``, the number of images; ``p_fake``, their mean ``p_fake``;
        ``fakes``, the fraction of fakes among them.
    """
    bin_N = np.minimum((p_fake_N * bins).astype(int), bins - 1)
    images = np.bincount(bin_N, minlength=bins)
    filled = images > 0
    predicted = np.bincount(bin_N, weights=p_fake_N, minlength=bins)[filled] / images[filled]
    observed = np.bincount(bin_N, weights=is_fake_N, minlength=bins)[filled] / images[filled]
    return {"images": images[filled].tolist(), "p_fake": predicted.tolist(), "fakes": observed.tolist()}


def expected_calibration_error(is_fake_N: Flags, p_fake_N: Scores, bins: int = BINS) -> float:
    """Mean distance between the predicted and the observed fraction of fakes, bins weighted by their images (ECE).

    Source: M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    diagram = reliability(is_fake_N, p_fake_N, bins)
    distance = np.abs(np.subtract(diagram["p_fake"], diagram["fakes"]))
    return float(np.average(distance, weights=diagram["images"]))
