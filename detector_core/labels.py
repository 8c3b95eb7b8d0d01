"""Real and fake: their names, their numbers, and which of them is the positive class.

Four conventions meet here and must not be mixed:

* **Metrics from counts** follow the paper (section IV): *positive = real photograph*. A false positive is therefore a
  **fake passed** (called real) and a false negative a **real flagged** (called fake). Everything shown uses those two
  names.
* **Ranking metrics** (ROC AUC, average precision, TPR at an FPR) have *positive = fake*.
* **The network** has one output, the logit of *fake*: its training target is 1 for fake and 0 for real, and
  ``p_fake = sigmoid(logit)``.
* **Kaggle's CSVs** write 1 for real and 0 for fake; only :data:`KAGGLE_NUMBER` knows that.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

REAL = "real"
FAKE = "fake"
LABELS = (REAL, FAKE)

SPLITS = ("train", "valid", "test")

TARGET = {REAL: 0.0, FAKE: 1.0}
KAGGLE_NUMBER = {REAL: 1, FAKE: 0}


def targets(labels: Iterable[str]) -> NDArray[np.float32]:
    """Training targets, shape (N,) float32: 1 for fake, 0 for real. Raises KeyError for any other label."""
    return np.array([TARGET[label] for label in labels], dtype=np.float32)


def is_fake(labels: Iterable[str]) -> NDArray[np.bool_]:
    """Boolean mask, shape (N,): True for fake. Raises KeyError for any label that is neither real nor fake."""
    fakes: NDArray[np.bool_] = targets(labels) == TARGET[FAKE]
    return fakes
