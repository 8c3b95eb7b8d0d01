"""The calibration of a model: a temperature for its probability, and two thresholds for its verdict.

All three are chosen on the validation split and then frozen; serving and the evaluation of the test split only read
them. ``p_fake`` is sigmoid(logit / temperature), and the thresholds are values of it::

    0 ---- real ---- real_below ---- uncertain ---- fake_above ---- fake ---- 1
                              at most 0.5    at least 0.5

``fake_above`` weighs both errors equally, and ``real_below`` limits the fraction of fakes that pass as real; both stay
on their own side of 0.5. So no verdict contradicts its probability: an image that is more likely fake than real is
never called real, nor the reverse. A model whose scores lie off center gets more uncertain verdicts instead. If both
are 0.5, no verdict is uncertain.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from detector_core import storage
from detector_core.errors import BrokenArtifact
from detector_core.evaluation.intervals import Flags, Scores
from detector_core.evaluation.metrics import brier_score, expected_calibration_error, undefined_reason
from detector_core.labels import FAKE, REAL
from detector_core.networks import artifacts

FORMAT = 2
UNCERTAIN: Final = "uncertain"
NO_FACE: Final = "no_face"
"""The verdict on an image that shows no face and therefore has no score."""
EVEN = 0.5
"""The probability at which real and fake are equally likely: ``real`` is never said above it, ``fake`` never below."""
VERDICTS = (REAL, UNCERTAIN, FAKE)
TEMPERATURE_RANGE = (0.1, 100.0)
FAKES_PASSED_LIMITS = (0.01, 0.02, 0.05)
"""The limits that :func:`choose` tries by default, the strictest first."""
MIN_REALS_PASSED = 0.5
"""A limit is too strict if a smaller fraction of the reals would be called real."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How to read a model's logits. The default leaves them as they are, with a single threshold at 0.5.

    Attributes:
        temperature: logits are divided by it.
        real_below: a ``p_fake`` below it is called real; at most 0.5.
        fake_above: a ``p_fake`` equal to it or above is called fake; at least 0.5. Between the two, the verdict is
            uncertain.
        max_fakes_passed: the largest fraction of fakes that ``real_below`` lets pass on the validation split.
        chosen_on: the data it was chosen on: ``fingerprint``, ``name``, ``split``, ``n`` and ``weights_sha256``; empty
            by default.
        fit: ``ece_before``, ``ece_after``, ``brier_before``, ``brier_after`` on that data.
    """

    temperature: float = 1.0
    real_below: float = EVEN
    fake_above: float = EVEN
    max_fakes_passed: float | None = None
    chosen_on: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    def p_fake(self, logit_N: ArrayLike) -> NDArray[np.float64]:
        """The calibrated probability of fake."""
        probability: NDArray[np.float64] = expit(np.asarray(logit_N, dtype=np.float64) / self.temperature)
        return probability

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Calibration":
        """The inverse of :meth:`to_dict`.

        Thresholds of an older version may lie on the same side of 0.5: the one on the wrong side is moved to 0.5, which
        makes verdicts in between uncertain.

        Raises:
            BrokenArtifact: ``values`` is not a calibration of this format, or has values that cannot work.
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise BrokenArtifact(f"a calibration of format {FORMAT} was expected")
        try:
            calibration = cls(**values)
            valid = 0 < calibration.temperature < np.inf and 0 <= calibration.real_below <= calibration.fake_above <= 1
        except TypeError as error:
            raise BrokenArtifact(str(error)) from None
        if not isinstance(calibration.chosen_on, dict):
            raise BrokenArtifact(f"chosen_on is {calibration.chosen_on!r}, not a table")
        if not valid:
            raise BrokenArtifact(
                f"temperature is {calibration.temperature}, real_below {calibration.real_below}, fake_above "
                f"{calibration.fake_above}: the first must be above 0, and 0 <= real_below <= fake_above <= 1"
            )
        real_below, fake_above = min(calibration.real_below, EVEN), max(calibration.fake_above, EVEN)
        return replace(calibration, real_below=real_below, fake_above=fake_above)


UNCALIBRATED = Calibration()


def bound_warning(calibration: Calibration) -> str | None:
    """What a reader must know if the temperature is at a bound of :data:`TEMPERATURE_RANGE`; None if it is not."""
    lowest, highest = TEMPERATURE_RANGE
    if calibration.temperature < lowest * 1.01:
        return (
            f"The temperature is at its lower bound, {lowest:g}: the scores of this network are so close to 0 that "
            f"p_fake stays closer to 0.5 than it should"
        )
    if calibration.temperature > highest / 1.01:
        return (
            f"The temperature is at its upper bound, {highest:g}: the scores say next to nothing about the label, and "
            f"p_fake is close to 0.5 for most images"
        )
    return None


def verdicts(p_fake_N: ArrayLike, calibration: Calibration) -> NDArray[np.str_]:
    """``real``, ``uncertain`` or ``fake`` for each calibrated probability."""
    p_N = np.asarray(p_fake_N, dtype=np.float64)
    conditions = [p_N < min(calibration.real_below, EVEN), p_N >= max(calibration.fake_above, EVEN)]
    return np.select(conditions, [REAL, FAKE], UNCERTAIN)


def verdict(p_fake: float, calibration: Calibration) -> str:
    """``real``, ``uncertain`` or ``fake`` for one calibrated probability."""
    return str(verdicts([p_fake], calibration)[0])


def choose(
    is_fake_N: Flags, logit_N: Scores, *, chosen_on: dict[str, Any], max_fakes_passed: float | None = None
) -> Calibration:
    """Fits the temperature and chooses both thresholds. Give it the validation split, never the test split.

    Args:
        max_fakes_passed: the largest fraction of fakes that may pass as real. None tries :data:`FAKES_PASSED_LIMITS` in
            order and takes the first at which at least half of the reals are still called real (the very first if none
            does). With a single limit, one unusual fake among a hundred images would make most verdicts uncertain.
        chosen_on: see :attr:`Calibration.chosen_on`.

    Returns:
        The calibration; the default one if the split has one class only.
    """
    fakes = int(is_fake_N.sum())
    if undefined_reason(len(is_fake_N) - fakes, fakes):
        return UNCALIBRATED
    temperature = fit_temperature(is_fake_N, logit_N)
    equal_cost = equal_cost_threshold(is_fake_N, logit_N)
    limits = FAKES_PASSED_LIMITS if max_fakes_passed is None else (max_fakes_passed,)
    even = 0.0  # the logit of a probability of 0.5, at any temperature
    thresholds = [min(even, equal_cost, real_threshold(is_fake_N, logit_N, limit)) for limit in limits]
    reals_passed = [float(np.mean(logit_N[~is_fake_N] < threshold)) for threshold in thresholds]
    best = next((i for i, passed in enumerate(reals_passed) if passed >= MIN_REALS_PASSED), 0)
    before, after = expit(logit_N), expit(logit_N / temperature)
    return Calibration(
        temperature=temperature,
        real_below=float(expit(thresholds[best] / temperature)),
        fake_above=float(expit(max(even, equal_cost) / temperature)),
        max_fakes_passed=limits[best],
        chosen_on=chosen_on,
        fit={
            "ece_before": expected_calibration_error(is_fake_N, before),
            "ece_after": expected_calibration_error(is_fake_N, after),
            "brier_before": brier_score(is_fake_N, before),
            "brier_after": brier_score(is_fake_N, after),
        },
    )


def fit_temperature(is_fake_N: Flags, logit_N: Scores) -> float:
    """The temperature with the lowest cross entropy, within :data:`TEMPERATURE_RANGE`.

    Targets are (fakes + 1) / (fakes + 2) and 1 / (reals + 2) instead of 1 and 0, so that a split that is separated
    without an error does not drive the probabilities to 0 and 1.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017; the targets are J. Platt's (1999).
    """
    from scipy.optimize import minimize_scalar

    fakes = int(is_fake_N.sum())
    target_N = np.where(is_fake_N, (fakes + 1) / (fakes + 2), 1 / (len(is_fake_N) - fakes + 2))

    def cross_entropy(log_temperature: float) -> float:
        x_N = logit_N / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, x_N) - target_N * x_N))

    optimum = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURE_RANGE), method="bounded")
    return float(np.exp(optimum.x))


def equal_cost_threshold(is_fake_N: Flags, logit_N: Scores) -> float:
    """The logit at which a logistic curve, fitted with both classes weighing the same, gives real and fake equal odds.

    The threshold with the lowest sum of error rates on the split (:func:`lowest_rates_threshold`) depends on the few
    images next to it; the curve uses all of them (docs/decisions.md has the comparison). If the curve does not rise, or
    crosses outside the scores, :func:`lowest_rates_threshold` decides.

    Source: J. Platt, "Probabilistic outputs for support vector machines", 1999, also for the targets.
    """
    from scipy.optimize import minimize

    fakes = int(is_fake_N.sum())
    reals = len(is_fake_N) - fakes
    mean, deviation = float(np.mean(logit_N)), float(np.std(logit_N))
    if deviation > 0:
        z_N = (np.asarray(logit_N, dtype=np.float64) - mean) / deviation
        target_N = np.where(is_fake_N, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
        weight_N = np.where(is_fake_N, 0.5 / fakes, 0.5 / reals)

        def cross_entropy(line: NDArray[np.float64]) -> float:
            x_N = line[0] * z_N + line[1]
            return float(np.sum(weight_N * (np.logaddexp(0, x_N) - target_N * x_N)))

        slope, offset = minimize(cross_entropy, (1.0, 0.0), method="BFGS").x
        if slope > 0 and z_N.min() < -offset / slope < z_N.max():
            return float(mean - deviation * offset / slope)
    return lowest_rates_threshold(is_fake_N, logit_N)


def lowest_rates_threshold(is_fake_N: Flags, logit_N: Scores) -> float:
    """The logit threshold that minimizes the sum of both error rates, fakes passed and reals flagged.

    It is the midpoint between two neighboring scores; among equally good midpoints, the one in the widest gap.
    """
    order = np.argsort(logit_N, kind="stable")
    logit, fake = logit_N[order].astype(np.float64), is_fake_N[order]
    passed = np.cumsum(fake)[:-1] / fake.sum()
    flagged = 1 - np.cumsum(~fake)[:-1] / (~fake).sum()
    gap = np.diff(logit)
    # Rounded, so that floating-point noise does not break ties between equally good thresholds.
    cost = np.where(gap > 0, np.round(passed + flagged, 12), np.inf)
    if not np.isfinite(cost).any():
        return float(logit[0])
    best = np.lexsort((-gap, cost))[0]
    return _midpoint(logit[best], logit[best + 1])


def real_threshold(is_fake_N: Flags, logit_N: Scores, max_fakes_passed: float) -> float:
    """The highest logit threshold below which at most that fraction of the fakes lies.

    It is the midpoint between the lowest fake that must not pass and the score before it.
    """
    fakes = np.sort(logit_N[is_fake_N]).astype(np.float64)
    allowed = min(int(np.floor(max_fakes_passed * len(fakes) + 1e-9)), len(fakes) - 1)
    lower = logit_N[logit_N < fakes[allowed]]
    return _midpoint(float(lower.max()), fakes[allowed]) if len(lower) else float(fakes[allowed])


def _midpoint(low: float, high: float) -> float:
    """The midpoint; ``high`` if no number lies between."""
    middle = (low + high) / 2
    return float(middle if middle > low else high)


def save(model_folder: str, calibration: Calibration) -> None:
    """Writes ``calibration.json`` into a model folder, atomically."""
    text = json.dumps(calibration.to_dict(), indent=2, allow_nan=False)
    storage.write_bytes(storage.join(model_folder, artifacts.CALIBRATION), text.encode())


def load(model_folder: str, weights_sha256: str) -> Calibration:
    """The calibration of a model; the default one if none was chosen yet.

    Raises:
        BrokenArtifact: the file is damaged, has another format, or was chosen for other weights.
    """
    path = storage.join(model_folder, artifacts.CALIBRATION)
    remedy = "delete it, or choose it again with jobs.evaluate --recalibrate"
    if not storage.exists(path):
        return UNCALIBRATED
    try:
        calibration = Calibration.from_dict(storage.read_json(path))
    except (ValueError, BrokenArtifact) as error:
        raise BrokenArtifact(f"{path} cannot be used ({error}): {remedy}") from None
    if calibration.chosen_on.get("weights_sha256") != weights_sha256:
        raise BrokenArtifact(f"{path} was chosen for other weights: {remedy}")
    return calibration
