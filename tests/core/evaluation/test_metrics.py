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


def test_metrics_counted_by_hand() -> None:
    is_fake = np.array([False, False, False, True, True])
    confusion = Confusion.from_scores(is_fake, np.array([0.1, 0.4, 0.6, 0.5, 0.2]), 0.5)
    assert confusion == Confusion(reals_passed=2, reals_flagged=1, fakes_caught=1, fakes_passed=1)
    values = {name: estimate.value for name, estimate in confusion.metrics().items()}
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
def test_metrics_agree_with_scikit_learn(scored_: tuple[Any, Any], threshold: float) -> None:
    is_fake, p_fake = scored_
    real, called_real = ~is_fake, p_fake < threshold
    metrics = Confusion.from_scores(is_fake, p_fake, threshold).metrics()
    expected = {
        "accuracy": sk.accuracy_score(real, called_real),
        "f1": sk.f1_score(real, called_real),
        "sensitivity": sk.recall_score(real, called_real),
        "specificity": sk.recall_score(is_fake, ~called_real),
        "precision": sk.precision_score(real, called_real) if called_real.any() else None,
    }
    for name, value in expected.items():
        assert metrics[name].value == (None if value is None else pytest.approx(value)), name
    specificity, sensitivity = metrics["specificity"].value, metrics["sensitivity"].value
    assert specificity is not None
    assert sensitivity is not None
    assert metrics["fakes_passed_rate"].value == pytest.approx(1 - specificity)
    assert metrics["reals_flagged_rate"].value == pytest.approx(1 - sensitivity)


@few
@given(counts, counts, counts, counts)
def test_a_metric_lies_within_its_interval_or_is_none_with_a_reason(tp: int, fp: int, fn: int, tn: int) -> None:
    metrics = Confusion(reals_passed=tp, fakes_passed=fp, reals_flagged=fn, fakes_caught=tn).metrics()
    assert tuple(metrics) == tuple(METRICS)
    for estimate in metrics.values():
        if estimate.value is None:
            assert estimate.reason
            assert estimate.to_dict() == {"value": None, "reason": estimate.reason}
        else:
            assert estimate.low is not None
            assert estimate.high is not None
            assert -1e-12 <= estimate.low <= estimate.value + 1e-12 <= estimate.high + 2e-12 <= 1 + 1e-9


@few
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_the_wilson_interval(count_of: tuple[int, int]) -> None:
    count, of = count_of
    z, p = 1.959963984540054, count / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    estimate = proportion(count, of, "unused")
    assert (estimate.low, estimate.high) == (
        pytest.approx(middle - half, abs=1e-9),
        pytest.approx(middle + half, abs=1e-9),
    )


def test_a_proportion_of_the_paper_has_its_known_interval() -> None:
    estimate = proportion(43, 10_000, "unused")
    assert (estimate.low, estimate.high) == (pytest.approx(0.003194, abs=1e-6), pytest.approx(0.005786, abs=1e-6))


@pytest.mark.parametrize(("fake", "reason"), [(True, NO_REALS), (False, NO_FAKES)])
def test_with_one_class_metrics_of_two_classes_are_undefined(fake: bool, reason: str) -> None:
    is_fake, p_fake = np.full(3, fake), np.array([0.1, 0.6, 0.7])
    metrics = Confusion.from_scores(is_fake, p_fake, 0.5).metrics()
    undefined = {name for name, estimate in metrics.items() if estimate.value is None}
    other = {"sensitivity", "reals_flagged_rate"} if fake else {"specificity", "fakes_passed_rate"}
    assert undefined == {"f1", "precision"} | other
    assert {metrics[name].reason for name in undefined} == {reason}
    assert set(ranking(is_fake, p_fake).values()) == {Estimate(reason=reason)}
    assert det_curve(is_fake, p_fake) == {"reals_flagged_rate": [], "fakes_passed_rate": []}


def test_labels_are_unique() -> None:
    labels = [short_label(name) for name in METRICS | RANKING_METRICS]
    assert len(set(labels)) == len(labels)
    assert [short_label(name) for name in ("f1", "fakes_passed_rate", "eer")] == [
        "F1",
        "fakes passed",
        "equal error rate",
    ]


def test_ranking_returns_the_ranking_metrics() -> None:
    assert tuple(ranking(np.array([True, False]), np.array([1.0, 0.0]))) == tuple(RANKING_METRICS)


def test_without_images_every_metric_is_undefined() -> None:
    nothing = Confusion(reals_passed=0, fakes_passed=0, reals_flagged=0, fakes_caught=0)
    assert {estimate.value for estimate in nothing.metrics().values()} == {None}
    reasons = {name: estimate.reason for name, estimate in nothing.metrics().items()}
    of_reals, of_fakes = ("sensitivity", "reals_flagged_rate"), ("specificity", "fakes_passed_rate")
    assert {reasons.pop(name) for name in of_reals} == {NO_REALS}
    assert {reasons.pop(name) for name in of_fakes} == {NO_FAKES}
    assert set(reasons.values()) == {NO_IMAGES}
    assert set(ranking(np.zeros(0, np.bool_), np.zeros(0)).values()) == {Estimate(reason=NO_IMAGES)}


def test_results_take_keywords_only_and_are_immutable() -> None:
    with pytest.raises(TypeError):
        Confusion(1, 2, 3, 4)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Estimate(0.5)  # type: ignore[misc]
    confusion = Confusion(reals_passed=1, fakes_passed=0, reals_flagged=0, fakes_caught=1)
    with pytest.raises(FrozenInstanceError):
        confusion.reals_passed = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Estimate(value=0.5).value = 0.6  # type: ignore[misc]


def test_a_proportion_records_its_counts() -> None:
    assert set(proportion(1, 2, "").to_dict()) == {"value", "low", "high", "count", "of"}
    assert (proportion(1, 2, "").count, proportion(1, 2, "").of) == (1, 2)


@few
@given(scored(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_passes_more_and_flags_fewer(scored_: tuple[Any, Any], one: float, other: float) -> None:
    is_fake, p_fake = scored_
    low, high = (Confusion.from_scores(is_fake, p_fake, threshold) for threshold in sorted((one, other)))
    assert sum(vars(low).values()) == sum(vars(high).values()) == len(is_fake)
    assert (low.reals, low.fakes) == (high.reals, high.fakes) == ((~is_fake).sum(), is_fake.sum())
    assert low.fakes_passed <= high.fakes_passed
    assert low.reals_flagged >= high.reals_flagged


@few
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(scored_: tuple[Any, Any], random: Any) -> None:
    is_fake, p_fake = scored_
    order = random.sample(range(len(is_fake)), len(is_fake))
    assert Confusion.from_scores(is_fake[order], p_fake[order], 0.5) == Confusion.from_scores(is_fake, p_fake, 0.5)
    assert det_curve(is_fake[order], p_fake[order]) == det_curve(is_fake, p_fake)
    values, shuffled = (ranking(is_fake[rows], p_fake[rows]) for rows in (slice(None), order))
    assert {name: estimate.value for name, estimate in shuffled.items()} == pytest.approx(
        {name: estimate.value for name, estimate in values.items()}
    )
    assert expected_calibration_error(is_fake[order], p_fake[order]) == pytest.approx(
        expected_calibration_error(is_fake, p_fake)
    )
    assert brier_score(is_fake[order], p_fake[order]) == pytest.approx(brier_score(is_fake, p_fake))


@few
@given(counts, st.integers(1, 500), st.integers(2, 9))
def test_more_images_narrow_the_interval(count: int, more: int, times: int) -> None:
    smaller, larger = proportion(count, count + more, ""), proportion(times * count, times * (count + more), "")
    assert larger.value == pytest.approx(smaller.value)
    assert None not in (smaller.low, smaller.high, larger.low, larger.high)
    assert larger.high - larger.low < smaller.high - smaller.low  # type: ignore[operator]
