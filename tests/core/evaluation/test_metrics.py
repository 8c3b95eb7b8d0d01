import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from detector_core.evaluation.metrics import (
    METRICS,
    NO_FAKES,
    NO_IMAGES,
    NO_REALS,
    RANKING_METRICS,
    Confusion,
    Estimate,
    brier_score,
    det_curve,
    expected_calibration_error,
    proportion,
    ranking,
    short_label,
)
from tests.support.scores import few, scored

counts = st.integers(0, 500)


def test_counts_by_hand() -> None:
    is_fake = np.array([False, False, False, True, True])
    confusion = Confusion.from_scores(is_fake, np.array([0.1, 0.4, 0.6, 0.5, 0.2]), 0.5)
    assert confusion == Confusion(reals_passed=2, reals_flagged=1, fakes_caught=1, fakes_passed=1)
    values = {name: rate.value for name, rate in confusion.metrics().items()}
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
    found = Confusion.from_scores(is_fake, p_fake, threshold).metrics()
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
    rates = Confusion(reals_passed=tp, fakes_passed=fp, reals_flagged=fn, fakes_caught=tn).metrics()
    assert tuple(rates) == tuple(METRICS)
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
    rate = proportion(count, of, "unused")
    assert (rate.low, rate.high) == (pytest.approx(middle - half, abs=1e-9), pytest.approx(middle + half, abs=1e-9))


def test_a_rate_of_the_paper_has_its_known_interval() -> None:
    rate = proportion(43, 10_000, "unused")
    assert (rate.low, rate.high) == (pytest.approx(0.003194, abs=1e-6), pytest.approx(0.005786, abs=1e-6))


@pytest.mark.parametrize(("fake", "reason"), [(True, NO_REALS), (False, NO_FAKES)])
def test_one_class_leaves_what_needs_two_undefined(fake: bool, reason: str) -> None:
    is_fake, p_fake = np.full(3, fake), np.array([0.1, 0.6, 0.7])
    rates = Confusion.from_scores(is_fake, p_fake, 0.5).metrics()
    undefined = {name for name, rate in rates.items() if rate.value is None}
    other = {"sensitivity", "reals_flagged_rate"} if fake else {"specificity", "fakes_passed_rate"}
    assert undefined == {"f1", "precision"} | other
    assert {rates[name].reason for name in undefined} == {reason}
    assert set(ranking(is_fake, p_fake).values()) == {Estimate(reason=reason)}
    assert det_curve(is_fake, p_fake) == {"reals_flagged": [], "fakes_passed": []}


def test_each_figure_has_a_name_of_its_own_in_every_table() -> None:
    names = [*map(short_label, METRICS), *RANKING_METRICS.values()]
    assert len(set(names)) == len(names)
    assert (short_label("f1"), short_label("specificity"), short_label("fakes_passed_rate")) == (
        "F1",
        "specificity",
        "fakes passed",
    )
    assert tuple(ranking(np.array([True, False]), np.array([1.0, 0.0]))) == tuple(RANKING_METRICS)


def test_no_images() -> None:
    nothing = Confusion(reals_passed=0, fakes_passed=0, reals_flagged=0, fakes_caught=0)
    assert {rate.value for rate in nothing.metrics().values()} == {None}
    reasons = {name: rate.reason for name, rate in nothing.metrics().items()}
    of_reals, of_fakes = ("sensitivity", "reals_flagged_rate"), ("specificity", "fakes_passed_rate")
    assert {reasons.pop(name) for name in of_reals} == {NO_REALS}
    assert {reasons.pop(name) for name in of_fakes} == {NO_FAKES}
    assert set(reasons.values()) == {NO_IMAGES}
    assert set(ranking(np.zeros(0, np.bool_), np.zeros(0)).values()) == {Estimate(reason=NO_IMAGES)}


def test_figures_cannot_be_mixed_up_or_changed() -> None:
    with pytest.raises(TypeError):
        Confusion(1, 2, 3, 4)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Estimate(0.5)  # type: ignore[misc]
    confusion, rate = Confusion(reals_passed=1, fakes_passed=0, reals_flagged=0, fakes_caught=1), Estimate(value=0.5)
    with pytest.raises(FrozenInstanceError):
        confusion.reals_passed = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        rate.value = 0.6  # type: ignore[misc]


def test_a_share_says_what_it_was_computed_from() -> None:
    assert set(proportion(1, 2, "").to_dict()) == {"value", "low", "high", "count", "of"}
    assert (proportion(1, 2, "").count, proportion(1, 2, "").of) == (1, 2)


@few
@given(scored(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_passes_more_and_flags_less(given_: tuple[Any, Any], one: float, other: float) -> None:
    is_fake, p_fake = given_
    low, high = (Confusion.from_scores(is_fake, p_fake, threshold) for threshold in sorted((one, other)))
    assert sum(vars(low).values()) == sum(vars(high).values()) == len(is_fake)
    assert (low.reals, low.fakes) == (high.reals, high.fakes) == ((~is_fake).sum(), is_fake.sum())
    assert low.fakes_passed <= high.fakes_passed
    assert low.reals_flagged >= high.reals_flagged


@few
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(given_: tuple[Any, Any], random: Any) -> None:
    is_fake, p_fake = given_
    order = random.sample(range(len(is_fake)), len(is_fake))
    assert Confusion.from_scores(is_fake[order], p_fake[order], 0.5) == Confusion.from_scores(is_fake, p_fake, 0.5)
    assert det_curve(is_fake[order], p_fake[order]) == det_curve(is_fake, p_fake)
    values, shuffled = (ranking(is_fake[rows], p_fake[rows]) for rows in (slice(None), order))
    assert {name: rate.value for name, rate in shuffled.items()} == pytest.approx(
        {name: rate.value for name, rate in values.items()}
    )
    assert expected_calibration_error(is_fake[order], p_fake[order]) == pytest.approx(
        expected_calibration_error(is_fake, p_fake)
    )
    assert brier_score(is_fake[order], p_fake[order]) == pytest.approx(brier_score(is_fake, p_fake))


@few
@given(counts, st.integers(1, 500), st.integers(2, 9))
def test_more_images_of_the_same_kind_make_an_interval_narrower(count: int, more: int, times: int) -> None:
    few_, many = proportion(count, count + more, ""), proportion(times * count, times * (count + more), "")
    assert many.value == pytest.approx(few_.value)
    assert None not in (few_.low, few_.high, many.low, many.high)
    assert many.high - many.low < few_.high - few_.low  # type: ignore[operator]
