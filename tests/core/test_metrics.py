import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from detector_core.metrics import (
    NO_FAKES,
    NO_REALS,
    RANKING,
    RATES,
    Confusion,
    Rate,
    brier,
    curve,
    ece,
    ranking,
    reliability,
    share,
    short,
)

few = settings(max_examples=30, deadline=None)  # the cores may be busy
counts = st.integers(0, 500)


@st.composite
def scored(draw: st.DrawFn) -> tuple[Any, Any]:
    """Both classes, and scores of fake with many ties."""
    n = draw(st.integers(2, 60))
    is_fake = draw(arrays.arrays(np.bool_, n))
    is_fake[:2] = (True, False)
    return is_fake, draw(arrays.arrays(np.int64, n, elements=st.integers(0, 20))) / 20


def test_counts_by_hand() -> None:
    is_fake = np.array([False, False, False, True, True])
    confusion = Confusion.at(is_fake, np.array([0.1, 0.4, 0.6, 0.5, 0.2]), 0.5)
    assert confusion == Confusion(reals_passed=2, reals_flagged=1, fakes_caught=1, fakes_passed=1)
    values = {name: rate.value for name, rate in confusion.rates().items()}
    assert values == pytest.approx(
        {
            "accuracy": 3 / 5,
            "f1": 4 / 6,
            "precision": 2 / 3,
            "specificity": 1 / 2,
            "sensitivity": 2 / 3,
            "fakes_passed_rate": 1 / 2,
            "reals_flagged_rate": 1 / 3,
        }
    )


@few
@given(scored(), st.floats(0, 1))
def test_rates_are_those_of_scikit_learn(given_: tuple[Any, Any], threshold: float) -> None:
    is_fake, p_fake = given_
    real, called_real = ~is_fake, p_fake < threshold
    found = Confusion.at(is_fake, p_fake, threshold).rates()
    expected = {
        "accuracy": sk.accuracy_score(real, called_real),
        "f1": sk.f1_score(real, called_real),
        "sensitivity": sk.recall_score(real, called_real),
        "specificity": sk.recall_score(is_fake, ~called_real),
        "precision": sk.precision_score(real, called_real) if called_real.any() else None,
    }
    for name, value in expected.items():
        assert found[name].value == (None if value is None else pytest.approx(value)), name
    specificity, sensitivity = found["specificity"].value, found["sensitivity"].value
    assert specificity is not None
    assert sensitivity is not None
    assert found["fakes_passed_rate"].value == pytest.approx(1 - specificity)
    assert found["reals_flagged_rate"].value == pytest.approx(1 - sensitivity)


@few
@given(counts, counts, counts, counts)
def test_a_rate_is_defined_and_within_its_interval_or_none_with_a_reason(tp: int, fp: int, fn: int, tn: int) -> None:
    rates = Confusion(reals_passed=tp, fakes_passed=fp, reals_flagged=fn, fakes_caught=tn).rates()
    assert tuple(rates) == tuple(RATES)
    for rate in rates.values():
        if rate.value is None:
            assert rate.reason
            assert rate.to_dict() == {"value": None, "reason": rate.reason}
        else:
            assert rate.low is not None
            assert rate.high is not None
            assert -1e-12 <= rate.low <= rate.value + 1e-12 <= rate.high + 2e-12 <= 1 + 1e-9


@few
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(count_of: tuple[int, int]) -> None:
    count, of = count_of
    z, p = 1.959963984540054, count / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    rate = share(count, of, "unused")
    assert (rate.low, rate.high) == (pytest.approx(middle - half, abs=1e-9), pytest.approx(middle + half, abs=1e-9))


def test_a_rate_of_the_paper_has_its_known_interval() -> None:
    rate = share(43, 10_000, "unused")
    assert (rate.low, rate.high) == (pytest.approx(0.003194, abs=1e-6), pytest.approx(0.005786, abs=1e-6))


@pytest.mark.parametrize(("fake", "reason"), [(True, NO_REALS), (False, NO_FAKES)])
def test_one_class_leaves_what_needs_two_undefined(fake: bool, reason: str) -> None:
    is_fake, p_fake = np.full(3, fake), np.array([0.1, 0.6, 0.7])
    rates = Confusion.at(is_fake, p_fake, 0.5).rates()
    undefined = {name for name, rate in rates.items() if rate.value is None}
    other = {"sensitivity", "reals_flagged_rate"} if fake else {"specificity", "fakes_passed_rate"}
    assert undefined == {"f1", "precision"} | other
    assert {rates[name].reason for name in undefined} == {reason}
    assert set(ranking(is_fake, p_fake).values()) == {Rate(reason=reason)}
    assert curve(is_fake, p_fake) == {"reals_flagged": [], "fakes_passed": []}


def test_each_figure_has_a_name_of_its_own_in_every_table() -> None:
    names = [*map(short, RATES), *RANKING.values()]
    assert len(set(names)) == len(names)
    assert (short("f1"), short("specificity"), short("fakes_passed_rate")) == ("F1", "specificity", "fakes passed")
    assert tuple(ranking(np.array([True, False]), np.array([1.0, 0.0]))) == tuple(RANKING)


def test_no_pictures() -> None:
    nothing = Confusion(reals_passed=0, fakes_passed=0, reals_flagged=0, fakes_caught=0)
    assert all(rate.value is None for rate in nothing.rates().values())


@few
@given(scored())
def test_ranking_is_that_of_scikit_learn(given_: tuple[Any, Any]) -> None:
    is_fake, score = given_
    found = ranking(is_fake, score)
    assert found["auc"].value == pytest.approx(sk.roc_auc_score(is_fake, score))
    assert found["average_precision"].value == pytest.approx(sk.average_precision_score(is_fake, score))
    points = curve(is_fake, score)
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
    assert ece(is_fake, p_fake, bins=2) == pytest.approx(0.5 * abs(0.2 - 0.5) + 0.5 * abs(0.95 - 1))
    assert brier(is_fake, p_fake) == pytest.approx((0.04 + 0.64 + 0.01 + 0) / 4)


@few
@given(scored())
def test_reliability_and_brier_are_those_of_scikit_learn(given_: tuple[Any, Any]) -> None:
    is_fake, p_fake = given_
    p_fake = np.clip(p_fake + 0.0123, 0, 1)  # on no bin's edge, where the two round differently
    true, said = calibration_curve(is_fake, p_fake, n_bins=10)
    found = reliability(is_fake, p_fake, bins=10)
    assert found["p_fake"] == pytest.approx(said)
    assert found["fakes"] == pytest.approx(true)
    assert sum(found["pictures"]) == len(p_fake)
    assert brier(is_fake, p_fake) == pytest.approx(sk.brier_score_loss(is_fake, p_fake))


@few
@given(scored(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_passes_more_and_flags_less(given_: tuple[Any, Any], one: float, other: float) -> None:
    is_fake, p_fake = given_
    low, high = (Confusion.at(is_fake, p_fake, threshold) for threshold in sorted((one, other)))
    assert sum(vars(low).values()) == sum(vars(high).values()) == len(is_fake)
    assert (low.reals, low.fakes) == (high.reals, high.fakes) == ((~is_fake).sum(), is_fake.sum())
    assert low.fakes_passed <= high.fakes_passed
    assert low.reals_flagged >= high.reals_flagged


@few
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_the_pictures_does_not_matter(given_: tuple[Any, Any], random: Any) -> None:
    is_fake, p_fake = given_
    order = random.sample(range(len(is_fake)), len(is_fake))
    assert Confusion.at(is_fake[order], p_fake[order], 0.5) == Confusion.at(is_fake, p_fake, 0.5)
    assert curve(is_fake[order], p_fake[order]) == curve(is_fake, p_fake)
    values, shuffled = (ranking(is_fake[rows], p_fake[rows]) for rows in (slice(None), order))
    assert {name: rate.value for name, rate in shuffled.items()} == pytest.approx(
        {name: rate.value for name, rate in values.items()}
    )
    assert ece(is_fake[order], p_fake[order]) == pytest.approx(ece(is_fake, p_fake))
    assert brier(is_fake[order], p_fake[order]) == pytest.approx(brier(is_fake, p_fake))


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
    found = curve(*given_)
    flagged, passed = np.array(found["reals_flagged"]), np.array(found["fakes_passed"])
    assert (flagged[0], passed[0], flagged[-1], passed[-1]) == (0, 1, 1, 0)
    assert (np.diff(flagged) >= 0).all()
    assert (np.diff(passed) <= 0).all()


@few
@given(counts, st.integers(1, 500), st.integers(2, 9))
def test_more_pictures_of_the_same_kind_make_an_interval_narrower(count: int, more: int, times: int) -> None:
    few_, many = share(count, count + more, ""), share(times * count, times * (count + more), "")
    assert many.value == pytest.approx(few_.value)
    assert None not in (few_.low, few_.high, many.low, many.high)
    assert many.high - many.low < few_.high - few_.low  # type: ignore[operator]


@few
@given(scored(), st.integers(1, 20))
def test_the_calibration_error_is_no_more_than_the_mean_distance(given_: tuple[Any, Any], bins: int) -> None:
    is_fake, p_fake = given_
    assert 0 <= ece(is_fake, p_fake, bins) <= np.abs(p_fake - is_fake).mean() + 1e-12
    assert ece(is_fake, is_fake.astype(float), bins) == 0
    assert brier(is_fake, is_fake.astype(float)) == 0
