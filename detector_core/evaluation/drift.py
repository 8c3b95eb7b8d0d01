"""Whether the scores of a service still look like those of the model's own test images.

The measure is the population stability index (PSI), as credit scoring uses it (N. Siddiqi, Credit Risk Scorecards,
2006): below 0.1 nothing has changed, above 0.25 much has. A service sees another share of fakes than a test split. So
the scores are compared with that mix of the model's reals and fakes that is closest to them: what remains is what no
share of fakes explains, such as a new generator, or photographs unlike those of the test.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 10
WINDOW, STEP = 2000, 100
"""The index is that of the last WINDOW scores, computed every STEP of them, once there are WINDOW / 4."""
_SHARES = np.linspace(0, 1, 101)
_SMOOTHING = 0.5


def fractions(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts per bin, of a multiple of BINS bins, as BINS fractions, none of them zero."""
    count_T: NDArray[np.float64] = np.asarray(counts, dtype=np.float64).reshape(BINS, -1).sum(1) + _SMOOTHING
    fraction_T: NDArray[np.float64] = count_T / count_T.sum()
    return fraction_T


def stability_index(observed_T: NDArray[np.float64], real_T: NDArray[np.float64], fake_T: NDArray[np.float64]) -> float:
    """The PSI of observed fractions against the closest mix of those of reals and of fakes."""
    mix_ST = (1 - _SHARES)[:, None] * real_T + _SHARES[:, None] * fake_T
    index_S = ((observed_T - mix_ST) * np.log(observed_T / mix_ST)).sum(1)
    return float(index_S.min())


class ScoreDrift:
    """The drift of a stream of scores.

    Args:
        histogram: how many reals and how many fakes of the model's own test split have p_fake in each of equal bins of
            [0, 1], a multiple of BINS; None if the model was not evaluated.
    """

    def __init__(self, histogram: tuple[Sequence[int], Sequence[int]] | None) -> None:
        self._reference = None if histogram is None else tuple(fractions(counts) for counts in histogram)
        self._bins: deque[int] = deque(maxlen=WINDOW)
        self._added = 0
        self.index = 0.0

    def add(self, p_fake: float) -> bool:
        """Adds a score; returns whether :attr:`index` was computed anew."""
        if self._reference is None:
            return False
        self._bins.append(min(int(p_fake * BINS), BINS - 1))
        self._added += 1
        if self._added % STEP or len(self._bins) < WINDOW // 4:
            return False
        observed_T = fractions(np.bincount(self._bins, minlength=BINS))
        self.index = stability_index(observed_T, *self._reference)
        return True
