"""What a score is worth: a temperature for the probability and two thresholds for the verdict.

All three are chosen on the validation split and then frozen; serving and the judgement of the test split only read
them. ``p_fake`` is sigmoid(logit / temperature), and thresholds are values of it::

    0 ---- real ---- real_below ---- uncertain ---- fake_above ---- fake ---- 1

``fake_above`` weighs both errors alike; ``real_below`` lets at most a stated share of the fakes pass. Where the first
already does, the two are one and nothing is uncertain.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from detector_core import storage
from detector_core.errors import BrokenArtifact
from detector_core.evaluation.metrics import Flags, Scores, brier, ece, missing_class
from detector_core.labels import FAKE, REAL
from detector_core.networks import artifacts

FORMAT = 1
UNCERTAIN = "uncertain"
VERDICTS = (REAL, UNCERTAIN, FAKE)
TEMPERATURES = (0.1, 100.0)
STATED_RATES = (0.01, 0.02, 0.05)
"""Shares of fakes passed to hold, the most careful first."""
LEAST_REALS_PASSED = 0.5


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How to read a model's logits. The default: as they are, with one threshold at 0.5.

    Attributes:
        temperature: logits are divided by it.
        real_below: ``p_fake`` below this is called real.
        fake_above: ``p_fake`` from this on is called fake; between the two the verdict is uncertain.
        stated_rate: the share of fakes passed that ``real_below`` holds on the validation split.
        chosen_on: where: ``fingerprint``, ``name``, ``split``, ``n``, ``weights_sha256``; empty by default.
        fit: ``ece_before``, ``ece_after``, ``brier_before``, ``brier_after`` on that split.
    """

    temperature: float = 1.0
    real_below: float = 0.5
    fake_above: float = 0.5
    stated_rate: float | None = None
    chosen_on: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    def p_fake(self, logit_N: ArrayLike) -> NDArray[np.float64]:
        """The calibrated probability of fake."""
        probability: NDArray[np.float64] = expit(np.asarray(logit_N, dtype=np.float64) / self.temperature)
        return probability

    def to_dict(self) -> dict[str, Any]:
        """What ``calibration.json`` holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Calibration":
        """The inverse of :meth:`to_dict`.

        Raises:
            BrokenArtifact: not a calibration of this format, or numbers that cannot work.
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise BrokenArtifact(f"a calibration of format {FORMAT} was expected")
        try:
            found = cls(**values)
            works = 0 < found.temperature < np.inf and 0 <= found.real_below <= found.fake_above <= 1
        except TypeError as error:
            raise BrokenArtifact(str(error)) from None
        if not isinstance(found.chosen_on, dict):
            raise BrokenArtifact(f"chosen_on is {found.chosen_on!r}, not a table")
        if not works:
            raise BrokenArtifact(
                f"temperature {found.temperature}, real_below {found.real_below} and fake_above {found.fake_above} "
                f"must be a number above 0 and two rising ones from 0 to 1"
            )
        return found


UNCALIBRATED = Calibration()


def verdicts(p_fake_N: ArrayLike, calibration: Calibration) -> NDArray[np.str_]:
    """``real``, ``uncertain`` or ``fake`` for each calibrated probability."""
    p_N = np.asarray(p_fake_N, dtype=np.float64)
    conditions = [p_N < calibration.real_below, p_N >= calibration.fake_above]
    return np.select(conditions, [REAL, FAKE], UNCERTAIN)


def verdict(p_fake: float, calibration: Calibration) -> str:
    """``real``, ``uncertain`` or ``fake`` for one calibrated probability."""
    return str(verdicts([p_fake], calibration)[0])


def choose(
    is_fake_N: Flags, logit_N: Scores, *, chosen_on: dict[str, Any], stated_rate: float | None = None
) -> Calibration:
    """Fits the temperature and chooses both thresholds. Give it the validation split, never the test split.

    Args:
        stated_rate: the share of fakes passed to hold. None takes the first of :data:`STATED_RATES` at which at least
            half of the reals are still called real (the first of all when none does): a validation split of a
            hundred images with one odd fake would otherwise make nearly everything uncertain.

    Returns:
        A calibration; the default one, without ``chosen_on``, when the images are all of one class.
    """
    fakes = int(is_fake_N.sum())
    if missing_class(len(is_fake_N) - fakes, fakes):
        return UNCALIBRATED
    temperature = fit_temperature(is_fake_N, logit_N)
    equal = equal_cost_cut(is_fake_N, logit_N)
    rates = STATED_RATES if stated_rate is None else (stated_rate,)
    cuts = [min(equal, holding_cut(is_fake_N, logit_N, rate)) for rate in rates]
    reals_passed = [float(np.mean(logit_N[~is_fake_N] < cut)) for cut in cuts]
    best = next((i for i, passed in enumerate(reals_passed) if passed >= LEAST_REALS_PASSED), 0)
    before, after = expit(logit_N), expit(logit_N / temperature)
    return Calibration(
        temperature=temperature,
        real_below=float(expit(cuts[best] / temperature)),
        fake_above=float(expit(equal / temperature)),
        stated_rate=rates[best],
        chosen_on=chosen_on,
        fit={
            "ece_before": ece(is_fake_N, before),
            "ece_after": ece(is_fake_N, after),
            "brier_before": brier(is_fake_N, before),
            "brier_after": brier(is_fake_N, after),
        },
    )


def fit_temperature(is_fake_N: Flags, logit_N: Scores) -> float:
    """The temperature of least cross entropy, within :data:`TEMPERATURES`.

    Targets are (fakes + 1) / (fakes + 2) and 1 / (reals + 2) in place of 1 and 0, so that a split that is told apart
    without an error does not ask for certainty.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017; the targets are J. Platt's (1999).
    """
    from scipy.optimize import minimize_scalar

    fakes = int(is_fake_N.sum())
    target_N = np.where(is_fake_N, (fakes + 1) / (fakes + 2), 1 / (len(is_fake_N) - fakes + 2))

    def cross_entropy(log_temperature: float) -> float:
        x_N = logit_N / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, x_N) - target_N * x_N))

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def equal_cost_cut(is_fake_N: Flags, logit_N: Scores) -> float:
    """The logit from which to call fake so that fakes passed and reals flagged, as rates, add up to the least.

    It lies in the middle between two neighbouring scores; among equally good places, where they are farthest apart.
    """
    order = np.argsort(logit_N, kind="stable")
    logit, fake = logit_N[order].astype(np.float64), is_fake_N[order]
    passed = np.cumsum(fake)[:-1] / fake.sum()
    flagged = 1 - np.cumsum(~fake)[:-1] / (~fake).sum()
    gap = np.diff(logit)
    # Rounding must not hide that two places are equally good.
    cost = np.where(gap > 0, np.round(passed + flagged, 12), np.inf)
    if not np.isfinite(cost).any():
        return float(logit[0])
    best = np.lexsort((-gap, cost))[0]
    return _between(logit[best], logit[best + 1])


def holding_cut(is_fake_N: Flags, logit_N: Scores, rate: float) -> float:
    """The highest logit below which at most ``rate`` of the fakes lie, in the middle to the score before it."""
    fakes = np.sort(logit_N[is_fake_N]).astype(np.float64)
    allowed = min(int(np.floor(rate * len(fakes) + 1e-9)), len(fakes) - 1)
    lower = logit_N[logit_N < fakes[allowed]]
    return _between(float(lower.max()), fakes[allowed]) if len(lower) else float(fakes[allowed])


def _between(low: float, high: float) -> float:
    """The middle; ``high`` itself where no number fits between."""
    middle = (low + high) / 2
    return float(middle if middle > low else high)


def save(model_folder: str, calibration: Calibration) -> None:
    """Writes ``calibration.json`` into a model folder, atomically."""
    text = json.dumps(calibration.to_dict(), indent=2, allow_nan=False)
    storage.write_bytes(storage.join(model_folder, artifacts.CALIBRATION), text.encode())


def load(model_folder: str, weights_sha256: str) -> Calibration:
    """The calibration of a model; the default one when none was chosen yet.

    Raises:
        BrokenArtifact: the file is damaged, or was chosen for other weights.
    """
    where = storage.join(model_folder, artifacts.CALIBRATION)
    again = "delete it, or choose it again with jobs.evaluate --recalibrate"
    if not storage.exists(where):
        return UNCALIBRATED
    try:
        found = Calibration.from_dict(json.loads(storage.read_bytes(where)))
    except (ValueError, BrokenArtifact) as error:
        raise BrokenArtifact(f"{where} cannot be used ({error}): {again}") from None
    if found.chosen_on.get("weights_sha256") != weights_sha256:
        raise BrokenArtifact(f"{where} was chosen for other weights: {again}")
    return found
