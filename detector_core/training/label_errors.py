"""Tags whose label is probably wrong, by the cross-validated confidence in it.

Confident learning (C. Northcutt, L. Jiang, I. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels,
2021), for two classes: a tag is doubtful if a classifier that did not see it is more confident of the other class than
it is, on average, of the tags of that class. The classifier is a logistic regression on the inputs of the last layer,
trained on the other tags alone: the training images say nothing about a generator that is new.
"""

import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detector_core.evaluation.intervals import Flags

FOLDS: Final = 5
REPEATS: Final = 3
"""Numbers of cross-validations with other folds, whose confidences are averaged."""
C_TIMES_WIDTH: Final = 3.4
"""Inverse strength of the regularization, times the number of features: the more there are, the less each may weigh."""


def confidences(feature_ND: NDArray[np.float32], is_fake_N: Flags) -> NDArray[np.float64]:
    """The cross-validated confidence in each label, from 0 to 1.

    Args:
        feature_ND: of all tags, FOLDS or more of each class.
        is_fake_N: their labels.
    """
    strength = C_TIMES_WIDTH / feature_ND.shape[1]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
    p_fake_RN = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged is enough for a ranking
        for seed in range(REPEATS):
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            p_fake_RN.append(
                cross_val_predict(classifier, feature_ND, is_fake_N, cv=folds, method="predict_proba")[:, 1]
            )
    p_fake_N = np.mean(p_fake_RN, axis=0)
    confidence_N: NDArray[np.float64] = np.where(is_fake_N, p_fake_N, 1 - p_fake_N)
    return confidence_N


def is_doubtful(confidence_N: Sequence[float] | NDArray[np.float64], is_fake_N: Flags) -> Flags:
    """Which labels are probably wrong: the other one is likelier, and as likely as it is where people gave it."""
    own_N = np.asarray(confidence_N, dtype=np.float64)
    usual = {label: own_N[is_fake_N == label].mean() for label in (False, True)}
    usual_of_other_N = np.where(is_fake_N, usual[False], usual[True])
    doubtful_N: Flags = (1 - own_N > own_N) & (1 - own_N >= usual_of_other_N)
    return doubtful_N
