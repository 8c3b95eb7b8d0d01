"""How well scores tell real from fake: counts, rates with intervals, ranking, calibration error.

Rates follow the paper (section IV): positive = real. The ranking measures (AUC, average precision, ROC) rank by the
score of *fake*, so there the fake is what is detected and a *false alarm* is a real flagged. Everything is a fraction.
A figure that is not defined (it needs both classes, say) is None and carries the reason; it is never 0 or NaN.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
FALSE_ALARMS = (0.005, 0.01)
"""Shares of reals flagged at which the share of fakes caught is told."""
BINS = 15
"""Equal-width bins of the expected calibration error."""

Flags = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A figure with its 95 % interval, or None with the reason.

    ``count`` of ``of`` images is what it was computed from; both are None where it is no plain share.
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


def share(count: int, of: int, reason: str) -> Rate:
    """``count`` of ``of`` with its Wilson interval; None with the ``reason`` when ``of`` is 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if of == 0:
        return Rate(reason=reason)
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(value=count / of, low=float(interval.low), high=float(interval.high), count=count, of=of)


NO_IMAGES, NO_REALS, NO_FAKES = "there are no images", "there are no reals", "there are no fakes"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How many images of each class were called what, in the paper's convention (positive = real).

    Attributes:
        reals_passed: real called real (true positives).
        fakes_passed: fake called real (false positives).
        reals_flagged: real called fake (false negatives).
        fakes_caught: fake called fake (true negatives).
    """

    reals_passed: int
    fakes_passed: int
    reals_flagged: int
    fakes_caught: int

    @classmethod
    def at(cls, is_fake_N: Flags, p_fake_N: Scores, threshold: float) -> "Confusion":
        """An image is called fake when ``p_fake >= threshold``."""
        called_fake_N = p_fake_N >= threshold
        return cls(
            reals_passed=int((~is_fake_N & ~called_fake_N).sum()),
            fakes_passed=int((is_fake_N & ~called_fake_N).sum()),
            reals_flagged=int((~is_fake_N & called_fake_N).sum()),
            fakes_caught=int((is_fake_N & called_fake_N).sum()),
        )

    @property
    def reals(self) -> int:
        """Images that are real."""
        return self.reals_passed + self.reals_flagged

    @property
    def fakes(self) -> int:
        """Images that are fake."""
        return self.fakes_passed + self.fakes_caught

    @property
    def missing_class(self) -> str | None:
        """Which class has no images, in words; None when both have some."""
        return NO_IMAGES if not self.reals + self.fakes else missing_class(self.reals, self.fakes)

    @property
    def accuracy(self) -> Rate:
        """Share of all images called what they are."""
        return share(self.reals_passed + self.fakes_caught, self.reals + self.fakes, NO_IMAGES)

    @property
    def sensitivity(self) -> Rate:
        """Share of the reals called real (recall)."""
        return share(self.reals_passed, self.reals, NO_REALS)

    @property
    def specificity(self) -> Rate:
        """Share of the fakes called fake."""
        return share(self.fakes_caught, self.fakes, NO_FAKES)

    @property
    def fakes_passed_rate(self) -> Rate:
        """Share of the fakes called real: the paper's false positive rate."""
        return share(self.fakes_passed, self.fakes, NO_FAKES)

    @property
    def reals_flagged_rate(self) -> Rate:
        """Share of the reals called fake: the false negative rate."""
        return share(self.reals_flagged, self.reals, NO_REALS)

    @property
    def precision(self) -> Rate:
        """Share of the images called real that are; needs both classes, since one alone makes it 0 or 1."""
        if self.missing_class:
            return Rate(reason=self.missing_class)
        return share(self.reals_passed, self.reals_passed + self.fakes_passed, "no image was called real")

    @property
    def f1(self) -> Rate:
        """Harmonic mean of precision and sensitivity; needs both classes.

        It is no share, but F1 = 2J / (1 + J) of one: J, the reals passed among all images that are real or were
        called so. Its interval is J's Wilson interval carried through that function.
        """
        if self.missing_class:
            return Rate(reason=self.missing_class)
        jaccard = share(self.reals_passed, self.reals + self.fakes_passed, NO_REALS)
        value, low, high = (None if j is None else 2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
        return Rate(value=value, low=low, high=high)

    def rates(self) -> dict[str, Rate]:
        """Table V's metrics, and both errors by name."""
        return {name: getattr(self, name) for name in RATES}


RATES = {
    "accuracy": "accuracy",
    "f1": "F1 (real)",
    "precision": "precision (real)",
    "specificity": "specificity (fakes caught)",
    "sensitivity": "sensitivity (reals passed)",
    "fakes_passed_rate": "fakes passed",
    "reals_flagged_rate": "reals flagged",
}
"""The rates of a Confusion in the order of Table V, and what they are called wherever they are shown."""
ERRORS = ("fakes_passed_rate", "reals_flagged_rate")
"""The two that no page may leave out; the first is the paper's false positive rate, and the graver one."""
RANKING = {
    "auc": "AUC",
    "average_precision": "average precision (fake)",
    "eer": "equal error rate",
    **{f"fakes_caught_at_{rate:g}": f"caught at {100 * rate:g} % flagged" for rate in FALSE_ALARMS},
}
"""The figures of :func:`ranking`, and what they are called."""


def short(name: str) -> str:
    """What a rate is called in the head of a column: without the words in brackets."""
    return RATES[name].partition(" (")[0]


def missing_class(reals: int, fakes: int) -> str | None:
    """The reason why a figure that needs both classes is not defined; None when there are both."""
    if reals and fakes:
        return None
    return NO_IMAGES if not reals and not fakes else NO_FAKES if reals else NO_REALS


def ranking(is_fake_N: Flags, score_N: Scores) -> dict[str, Rate]:
    """How well the score of fake orders the images, whatever the threshold.

    Returns:
        ``auc``; ``average_precision`` with the fake as the detected class; ``eer``, where as many reals are flagged as
        fakes pass; ``fakes_caught_at_0.005`` and ``_0.01``, the most fakes caught by a threshold that flags at most
        that share of these reals.
    """
    fakes = int(is_fake_N.sum())
    reason = missing_class(len(is_fake_N) - fakes, fakes)
    if reason:
        return dict.fromkeys(RANKING, Rate(reason=reason))
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    alarm, caught, _ = roc_curve(is_fake_N, score_N, drop_intermediate=False)
    found = {
        "auc": Rate(value=float(roc_auc_score(is_fake_N, score_N))),
        "average_precision": Rate(value=float(average_precision_score(is_fake_N, score_N))),
        "eer": Rate(value=_crossing(alarm, 1 - caught)),
    }
    for rate in FALSE_ALARMS:
        at_most = round(float(caught[alarm <= rate].max()) * fakes)
        found[f"fakes_caught_at_{rate:g}"] = share(at_most, fakes, NO_FAKES)
    return {name: found[name] for name in RANKING}


def curve(is_fake_N: Flags, score_N: Scores) -> dict[str, list[float]]:
    """The trade between both errors, threshold by threshold: ``reals_flagged`` rising, ``fakes_passed`` falling.

    The DET curve as it is; the ROC curve with 1 - fakes_passed. Empty lists when a class is missing.
    """
    if len(np.unique(is_fake_N)) < 2:
        return {"reals_flagged": [], "fakes_passed": []}
    from sklearn.metrics import roc_curve

    alarm, caught, _ = roc_curve(is_fake_N, score_N)
    return {"reals_flagged": alarm.tolist(), "fakes_passed": (1 - caught).tolist()}


def _crossing(rising: Scores, falling: Scores) -> float:
    """The height at which two curves over the same steps meet, by straight lines; they start at 0 and 1."""
    after = int(np.argmax(rising >= falling))
    before = after - 1
    gap_before, gap_after = falling[before] - rising[before], rising[after] - falling[after]
    return float(rising[before] + gap_before / (gap_before + gap_after) * (rising[after] - rising[before]))


def brier(is_fake_N: Flags, p_fake_N: Scores) -> float:
    """Mean squared distance of ``p_fake`` from the truth; 0.25 is always saying 0.5."""
    return float(np.mean((p_fake_N - is_fake_N) ** 2))


def reliability(is_fake_N: Flags, p_fake_N: Scores, bins: int = BINS) -> dict[str, list[Any]]:
    """Per equal-width bin of ``p_fake`` that holds images: how many, their mean ``p_fake``, the share of fakes."""
    bin_N = np.minimum((p_fake_N * bins).astype(int), bins - 1)
    images = np.bincount(bin_N, minlength=bins)
    held = images > 0
    said = np.bincount(bin_N, weights=p_fake_N, minlength=bins)[held] / images[held]
    true = np.bincount(bin_N, weights=is_fake_N, minlength=bins)[held] / images[held]
    return {"images": images[held].tolist(), "p_fake": said.tolist(), "fakes": true.tolist()}


def ece(is_fake_N: Flags, p_fake_N: Scores, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of said from true share of fakes, bins weighted by their images.

    Source: M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    table = reliability(is_fake_N, p_fake_N, bins)
    distance = np.abs(np.subtract(table["p_fake"], table["fakes"]))
    return float(np.average(distance, weights=table["images"]))
