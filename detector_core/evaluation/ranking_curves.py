"""Metrics along the thresholds of many samples of scores at once: one row of counts per sample.

Not in this module: their intervals (:mod:`detector_core.evaluation.intervals`) and what is reported
(:func:`detector_core.evaluation.metrics.ranking`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


class Curves:
    """Error curves over all thresholds, for B samples of reals and fakes.

    Args:
        reals_BG: the number of reals with each of G different scores, the highest score first.
        fakes_BG: the same for the fakes; every sample has at least one of both classes.
    """

    def __init__(self, reals_BG: Counts, fakes_BG: Counts) -> None:
        self._fakes_BG = fakes_BG
        start = ((0, 0), (1, 0))  # a threshold above every score
        self._flagged_BT = np.cumsum(np.pad(reals_BG, start), axis=1)
        self._caught_BT = np.cumsum(np.pad(fakes_BG, start), axis=1)
        self._reals, self._fakes = int(self._flagged_BT[0, -1]), int(self._caught_BT[0, -1])

    @classmethod
    def of(cls, is_fake_N: NDArray[np.bool_], score_N: NDArray[Any]) -> "Curves":
        """The curves of one sample, B = 1."""
        group_N = np.unique(score_N, return_inverse=True)[1]
        groups = int(group_N.max()) + 1
        reals, fakes = (np.bincount(group_N[of], minlength=groups)[::-1][None] for of in (~is_fake_N, is_fake_N))
        return cls(reals, fakes)

    def values(self, rates: tuple[float, ...]) -> dict[str, Floats]:
        """``average_precision``, ``eer`` and, for each F of ``rates``, ``fakes_caught_at_F``, each of shape (B,)."""
        caught = {f"fakes_caught_at_{rate:g}": self._fakes_caught_at(rate) for rate in rates}
        return {"average_precision": self._average_precision(), "eer": self._equal_error_rate(), **caught}

    def _average_precision(self) -> Floats:
        """The mean precision of calling fake, over the fakes, at the threshold of each."""
        called_fake = self._caught_BT[:, 1:] + self._flagged_BT[:, 1:]
        precision = self._caught_BT[:, 1:] / np.maximum(called_fake, 1)
        mean: Floats = (self._fakes_BG * precision).sum(axis=1) / self._fakes
        return mean

    def _equal_error_rate(self) -> Floats:
        """The height at which reals flagged and fakes passed, both linear between thresholds, cross."""
        flagged, passed = self._flagged_BT / self._reals, 1 - self._caught_BT / self._fakes
        row = np.arange(len(flagged))
        after = np.argmax(flagged >= passed, axis=1)
        before = after - 1  # flagged starts at 0 and passed at 1, so ``after`` is never the first threshold
        gap_before = passed[row, before] - flagged[row, before]
        gap_after = flagged[row, after] - passed[row, after]
        step = flagged[row, after] - flagged[row, before]
        crossing: Floats = flagged[row, before] + gap_before / (gap_before + gap_after) * step
        return crossing

    def _fakes_caught_at(self, rate: float) -> Floats:
        """The largest fraction of fakes caught by a threshold that flags at most that fraction of the reals."""
        allowed = np.floor(rate * self._reals + 1e-9)
        most: Floats = np.where(self._flagged_BT <= allowed, self._caught_BT, 0).max(axis=1) / self._fakes
        return most
