"""What is computed from scores rather than counts: the ranking, the curve, the calibration error."""

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
    reliability,
)
from tests.support.scores import few, scored


def test_a_threshold_may_flag_exactly_the_share_that_is_allowed() -> None:
    """400 reals: the first fake lies above them all, each of the next above one real more."""
    is_fake = np.array([True, False] * 10 + [False] * 390)
    found = ranking(is_fake, -np.arange(410.0))
    assert [found[name].count for name in ("fakes_caught_at_0.005", "fakes_caught_at_0.01")] == [3, 5]
    assert RANKING_METRICS["fakes_caught_at_0.005"] == "caught at 0.5 % flagged"


def test_thresholds_on_a_straight_piece_of_the_curve_count_too() -> None:
    """200 pairs of a fake and a real with the same score: the curve is the diagonal, which has no corner to stop at."""
    found = ranking(np.array([True, False] * 200), np.repeat(np.arange(200.0), 2))
    assert [found[name].count for name in ("fakes_caught_at_0.005", "fakes_caught_at_0.01")] == [1, 2]


@few
@given(scored())
def test_ranking_is_that_of_scikit_learn(given_: tuple[Any, Any]) -> None:
    is_fake, score = given_
    found = ranking(is_fake, score)
    assert found["auc"].value == pytest.approx(sk.roc_auc_score(is_fake, score))
    assert found["average_precision"].value == pytest.approx(sk.average_precision_score(is_fake, score))
    points = det_curve(is_fake, score)
    area = sk.auc(points["reals_flagged"], 1 - np.array(points["fakes_passed"]))
    assert area == pytest.approx(sk.roc_auc_score(is_fake, score))


@few
@given(scored())
def test_fakes_caught_is_the_best_of_all_thresholds(given_: tuple[Any, Any]) -> None:
    is_fake, score = given_
    found = ranking(is_fake, score)
    for rate in (0.005, 0.01):
        thresholds = [t for t in [*score, 2.0] if np.mean(score[~is_fake] >= t) <= rate]
        best = max(int((score[is_fake] >= t).sum()) for t in thresholds)
        assert (found[f"fakes_caught_at_{rate:g}"].count, found[f"fakes_caught_at_{rate:g}"].of) == (
            best,
            is_fake.sum(),
        )


@few
@given(scored())
def test_the_equal_error_rate_treats_both_classes_alike(given_: tuple[Any, Any]) -> None:
    is_fake, score = given_
    eer = ranking(is_fake, score)["eer"].value
    assert eer is not None
    assert 0 <= eer <= 1
    assert ranking(~is_fake, -score)["eer"].value == pytest.approx(eer)
    alarm, caught, _ = sk.roc_curve(is_fake, score, drop_intermediate=False)
    errors = np.stack([alarm, 1 - caught])
    assert errors.min(axis=0).max() - 1e-9 <= eer <= errors.max(axis=0).min() + 1e-9, "it lies between the two errors"


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
def test_reliability_and_brier_are_those_of_scikit_learn(given_: tuple[Any, Any]) -> None:
    is_fake, p_fake = given_
    p_fake = np.clip(p_fake + 0.0123, 0, 1)  # on no bin's edge, where the two round differently
    true, said = calibration_curve(is_fake, p_fake, n_bins=10)
    found = reliability(is_fake, p_fake, bins=10)
    assert found["p_fake"] == pytest.approx(said)
    assert found["fakes"] == pytest.approx(true)
    assert sum(found["images"]) == len(p_fake)
    assert brier_score(is_fake, p_fake) == pytest.approx(sk.brier_score_loss(is_fake, p_fake))


@few
@given(scored())
def test_only_the_order_of_the_scores_ranks(given_: tuple[Any, Any]) -> None:
    is_fake, score = given_
    found = ranking(is_fake, score)
    assert ranking(is_fake, np.exp(3 * score)) == found
    auc = found["auc"].value
    assert auc is not None
    assert ranking(~is_fake, score)["auc"].value == pytest.approx(1 - auc)


@few
@given(scored())
def test_the_curve_goes_from_nothing_flagged_to_nothing_passed(given_: tuple[Any, Any]) -> None:
    found = det_curve(*given_)
    flagged, passed = np.array(found["reals_flagged"]), np.array(found["fakes_passed"])
    assert (flagged[0], passed[0], flagged[-1], passed[-1]) == (0, 1, 1, 0)
    assert (np.diff(flagged) >= 0).all()
    assert (np.diff(passed) <= 0).all()


@few
@given(scored(), st.integers(1, 20))
def test_the_calibration_error_is_no_more_than_the_mean_distance(given_: tuple[Any, Any], bins: int) -> None:
    is_fake, p_fake = given_
    assert 0 <= expected_calibration_error(is_fake, p_fake, bins) <= np.abs(p_fake - is_fake).mean() + 1e-12
    assert expected_calibration_error(is_fake, is_fake.astype(float), bins) == 0
    assert brier_score(is_fake, is_fake.astype(float)) == 0
