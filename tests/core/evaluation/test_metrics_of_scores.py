"""Metrics that are computed from scores rather than counts: ranking, DET curve, calibration error."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from detector_core.evaluation.metrics import (
    RANKING_METRICS,
    brier_score,
    det_curve,
    expected_calibration_error,
    ranking,
    ranking_values,
    reliability,
)
from tests.support.scores import few, scored


def test_a_threshold_may_flag_exactly_the_allowed_fraction() -> None:
    """400 reals: the first fake scores above all of them, and each further fake below one more real."""
    is_fake = np.array([True, False] * 10 + [False] * 390)
    ranks = ranking(is_fake, -np.arange(410.0))
    assert [ranks[name].count for name in ("fakes_caught_at_0.005", "fakes_caught_at_0.01")] == [3, 5]
    assert RANKING_METRICS["fakes_caught_at_0.005"] == "fakes caught at 0.5% reals flagged (TPR@FPR=0.5%)"


def test_thresholds_inside_a_straight_segment_of_the_roc_curve_count() -> None:
    """200 pairs of a fake and a real with the same score: the curve is the diagonal, which has no corner to stop at."""
    ranks = ranking(np.array([True, False] * 200), np.repeat(np.arange(200.0), 2))
    assert [ranks[name].count for name in ("fakes_caught_at_0.005", "fakes_caught_at_0.01")] == [1, 2]


@few
@given(scored())
def test_ranking_agrees_with_scikit_learn(scored_: tuple[Any, Any]) -> None:
    is_fake, score = scored_
    ranks = ranking(is_fake, score)
    assert ranks["auc"].value == pytest.approx(sk.roc_auc_score(is_fake, score))
    assert ranks["average_precision"].value == pytest.approx(sk.average_precision_score(is_fake, score))
    points = det_curve(is_fake, score)
    area = sk.auc(points["reals_flagged_rate"], 1 - np.array(points["fakes_passed_rate"]))
    assert area == pytest.approx(sk.roc_auc_score(is_fake, score))


@few
@given(scored())
def test_fakes_caught_is_the_maximum_over_all_thresholds(scored_: tuple[Any, Any]) -> None:
    is_fake, score = scored_
    values = ranking_values(is_fake, score)
    for rate in (0.005, 0.01):
        thresholds = [t for t in [*score, 2.0] if np.mean(score[~is_fake] >= t) <= rate]
        best = max(int((score[is_fake] >= t).sum()) for t in thresholds)
        assert values[f"fakes_caught_at_{rate:g}"] == pytest.approx(best / is_fake.sum())


@few
@given(scored())
def test_the_equal_error_rate_is_symmetric_in_the_classes(scored_: tuple[Any, Any]) -> None:
    is_fake, score = scored_
    eer = ranking(is_fake, score)["eer"].value
    assert eer is not None
    assert 0 <= eer <= 1
    assert ranking(~is_fake, -score)["eer"].value == pytest.approx(eer)
    flagged, caught, _ = sk.roc_curve(is_fake, score, drop_intermediate=False)
    errors = np.stack([flagged, 1 - caught])
    assert errors.min(axis=0).max() - 1e-9 <= eer <= errors.max(axis=0).min() + 1e-9, "between both error rates"


def test_equal_error_rate_by_hand() -> None:
    is_fake = np.array([False] * 4 + [True] * 4)
    assert ranking(is_fake, np.array([0, 1, 2, 5, 4, 6, 7, 8.0]))["eer"].value == pytest.approx(0.25)
    assert ranking(is_fake, np.arange(8.0))["eer"].value == 0
    assert ranking(is_fake, np.zeros(8))["eer"].value == pytest.approx(0.5)
    assert ranking(is_fake, -np.arange(8.0))["eer"].value == 1


def test_calibration_error_by_hand() -> None:
    is_fake = np.array([False, True, True, True])
    p_fake = np.array([0.2, 0.2, 0.9, 1.0])
    assert expected_calibration_error(is_fake, p_fake, bins=2) == pytest.approx(
        0.5 * abs(0.2 - 0.5) + 0.5 * abs(0.95 - 1)
    )
    assert brier_score(is_fake, p_fake) == pytest.approx((0.04 + 0.64 + 0.01 + 0) / 4)


def test_there_are_15_bins() -> None:
    p_fake = np.linspace(0, 1, 31)
    is_fake = p_fake > 0.3
    assert reliability(is_fake, p_fake) == reliability(is_fake, p_fake, bins=15)
    assert len(reliability(is_fake, p_fake)["images"]) == 15
    assert (
        expected_calibration_error(is_fake, p_fake)
        == expected_calibration_error(is_fake, p_fake, bins=15)
        != expected_calibration_error(is_fake, p_fake, bins=14)
    )


@few
@given(scored())
def test_reliability_and_brier_score_agree_with_scikit_learn(scored_: tuple[Any, Any]) -> None:
    is_fake, p_fake = scored_
    p_fake = np.clip(p_fake + 0.0123, 0, 1)  # not on a bin's edge, where the two implementations round differently
    observed, predicted = calibration_curve(is_fake, p_fake, n_bins=10)
    diagram = reliability(is_fake, p_fake, bins=10)
    assert diagram["p_fake"] == pytest.approx(predicted)
    assert diagram["fakes"] == pytest.approx(observed)
    assert sum(diagram["images"]) == len(p_fake)
    assert brier_score(is_fake, p_fake) == pytest.approx(sk.brier_score_loss(is_fake, p_fake))


@few
@given(scored())
def test_only_the_order_of_the_scores_matters_for_ranking(scored_: tuple[Any, Any]) -> None:
    is_fake, score = scored_
    ranks = ranking(is_fake, score)
    assert ranking(is_fake, np.exp(3 * score)) == ranks
    auc = ranks["auc"].value
    assert auc is not None
    assert ranking(~is_fake, score)["auc"].value == pytest.approx(1 - auc)


@few
@given(scored())
def test_the_det_curve_starts_with_nothing_flagged_and_ends_with_nothing_passed(scored_: tuple[Any, Any]) -> None:
    curve = det_curve(*scored_)
    flagged, passed = np.array(curve["reals_flagged_rate"]), np.array(curve["fakes_passed_rate"])
    assert (flagged[0], passed[0], flagged[-1], passed[-1]) == (0, 1, 1, 0)
    assert (np.diff(flagged) >= 0).all()
    assert (np.diff(passed) <= 0).all()


@few
@given(scored(), st.integers(1, 20))
def test_the_calibration_error_is_at_most_the_mean_absolute_error(scored_: tuple[Any, Any], bins: int) -> None:
    is_fake, p_fake = scored_
    assert 0 <= expected_calibration_error(is_fake, p_fake, bins) <= np.abs(p_fake - is_fake).mean() + 1e-12
    assert expected_calibration_error(is_fake, is_fake.astype(float), bins) == 0
    assert brier_score(is_fake, is_fake.astype(float)) == 0
