"""Intervals and the paired test, against implementations of their own, hand cases and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from detector_core.evaluation.intervals import (
    Flags,
    Scores,
    anytime_interval,
    auc,
    auc_interval,
    bootstrap_intervals,
    compare_aucs,
    wilson_interval,
)
from detector_core.evaluation.metrics import FLAGGED_RATES, ranking
from tests.support.scores import few, scored

Z = 1.959963984540054


def psi(fake: float, real: float) -> float:
    return 1.0 if fake > real else 0.5 if fake == real else 0.0


def delong_variance(is_fake: Flags, score: Scores) -> tuple[float, float]:
    """AUC and its variance by the double sums of DeLong's paper."""
    fakes, reals = score[is_fake], score[~is_fake]
    area = np.mean([[psi(f, r) for r in reals] for f in fakes])
    of_fakes = [np.mean([psi(f, r) for r in reals]) for f in fakes]
    of_reals = [np.mean([psi(f, r) for f in fakes]) for r in reals]
    s10 = sum((v - area) ** 2 for v in of_fakes) / (len(fakes) - 1)
    s01 = sum((v - area) ** 2 for v in of_reals) / (len(reals) - 1)
    return float(area), s10 / len(fakes) + s01 / len(reals)


def simulated(seed: int, reals: int, fakes: int, distance: float) -> tuple[Flags, Scores]:
    rng = np.random.default_rng(seed)
    is_fake = np.arange(reals + fakes) >= reals
    return is_fake, rng.normal(size=reals + fakes) + distance * is_fake


@few
@given(scored())
def test_the_auc_interval_is_delongs_on_the_logit_scale(scored_: tuple[Flags, Scores]) -> None:
    is_fake, score = scored_
    assert auc(is_fake, score) == pytest.approx(sk.roc_auc_score(is_fake, score))
    low, high = auc_interval(is_fake, score)
    assert 0 <= low <= auc(is_fake, score) <= high <= 1
    if min(is_fake.sum(), (~is_fake).sum()) < 2:
        return
    area, variance = delong_variance(is_fake, score)
    if 0 < area < 1 and variance > 1e-12:
        half = Z * math.sqrt(variance) / (area * (1 - area))
        odds = math.log(area / (1 - area))
        expected = [1 / (1 + math.exp(-x)) for x in (odds - half, odds + half)]
        assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_delong_by_hand() -> None:
    """Reals 1, 2, 3 and fakes 2, 4: placements of the fakes 1/2 and 1, of the reals 1, 3/4 and 1/2."""
    is_fake, score = np.array([False, False, False, True, True]), np.array([1.0, 2.0, 3.0, 2.0, 4.0])
    assert auc(is_fake, score) == 0.75
    assert delong_variance(is_fake, score) == (0.75, pytest.approx(1 / 8 / 2 + 1 / 16 / 3))
    assert auc_interval(is_fake, score) == auc_interval(is_fake, 10 * score), "only the order matters"


@pytest.mark.parametrize(("reals", "fakes"), [(10, 10), (1, 5), (200, 3)])
def test_perfect_separation_still_has_an_interval(reals: int, fakes: int) -> None:
    """Newcombe's equation holds at the bound, and the bound of the reversed scores mirrors it."""
    is_fake = np.arange(reals + fakes) >= reals
    low, high = auc_interval(is_fake, is_fake.astype(float))
    assert high == 1
    assert 0 < low < 1
    more = (reals + fakes) / 2 - 1
    variance = low * (1 - low) * (1 + more * (1 - low) / (2 - low) + more * low / (1 + low)) / (reals * fakes)
    assert 1 - low == pytest.approx(Z * math.sqrt(variance))
    assert auc_interval(is_fake, -is_fake.astype(float)) == (0, pytest.approx(1 - low))


def test_more_images_narrow_the_interval_of_a_perfect_auc() -> None:
    lows = [auc_interval(np.arange(2 * n) >= n, np.arange(2.0 * n))[0] for n in (5, 50, 500)]
    assert lows == sorted(lows)
    assert lows[0] < 0.75
    assert lows[-1] > 0.99


def test_the_auc_interval_covers_the_true_value_as_often_as_it_says() -> None:
    """Two normal distributions 2 apart have an AUC of Phi(2 / sqrt 2)."""
    true = 0.5 * (1 + math.erf(2 / math.sqrt(2) / math.sqrt(2)))
    intervals = [auc_interval(*simulated(seed, 60, 40, 2.0)) for seed in range(400)]
    assert 0.925 <= np.mean([low <= true <= high for low, high in intervals]) <= 0.975


def test_paired_delong_agrees_with_a_permutation_test() -> None:
    """Swapping the two models' ranks of an image changes nothing if they are equally good."""
    is_fake, first = simulated(1, 60, 60, 1.0)
    second = first + np.random.default_rng(4).normal(0, 0.7, len(first))
    result = compare_aucs(is_fake, first, second)
    observed = sk.roc_auc_score(is_fake, first) - sk.roc_auc_score(is_fake, second)
    assert result.difference == pytest.approx(observed)
    ranks = np.stack([np.argsort(np.argsort(score)) for score in (first, second)])
    rng, extreme, rounds = np.random.default_rng(3), 0, 400
    for _ in range(rounds):
        swap = rng.random(len(first)) < 0.5
        a, b = np.where(swap, ranks[::-1], ranks)
        extreme += abs(sk.roc_auc_score(is_fake, a) - sk.roc_auc_score(is_fake, b)) >= abs(observed)
    assert result.p_value == pytest.approx(extreme / rounds, abs=0.06)
    assert 0.001 < extreme / rounds < 0.4, "a case in which the two could disagree"


def test_the_paired_variance_is_that_of_the_double_sums() -> None:
    """Var(A - B) = Var(A) + Var(B) - 2 Cov(A, B), the covariance by the paper's sums."""
    is_fake, first = simulated(4, 12, 9, 1.0)
    second = simulated(5, 12, 9, 0.5)[1] + first
    total = sum(delong_variance(is_fake, score)[1] for score in (first, second))
    covariance = 0.0
    for swap in (False, True):
        parts = []
        for score in (first, second):
            ours, others = score[is_fake != swap], score[is_fake == swap]
            parts.append([np.mean([psi(*((o, x) if swap else (x, o))) for o in others]) for x in ours])
        covariance += float(np.cov(parts[0], parts[1])[0, 1]) / len(parts[0])
    result = compare_aucs(is_fake, first, second)
    assert result.low is not None
    assert result.high is not None
    assert (result.high - result.low) / 2 == pytest.approx(Z * math.sqrt(total - 2 * covariance))
    mirrored = compare_aucs(is_fake, second, first)
    assert (mirrored.difference, mirrored.p_value) == (-result.difference, pytest.approx(result.p_value))


def test_equal_orders_do_not_differ_and_no_variance_is_no_certainty() -> None:
    is_fake, score = simulated(6, 20, 20, 1.0)
    same = compare_aucs(is_fake, score, np.exp(score))
    assert (same.difference, same.p_value, same.low, same.high) == (0, 1, 0, 0)
    perfect, reversed_ = is_fake.astype(float), -is_fake.astype(float)
    opposite = compare_aucs(is_fake, perfect, reversed_)
    assert (opposite.difference, opposite.p_value) == (1, None)
    assert "too few or too alike" in str(opposite.reason)


def test_no_difference_is_found_as_rarely_as_the_level_says() -> None:
    found = []
    for seed in range(300):
        is_fake, shared = simulated(seed, 50, 50, 1.0)
        noise = np.random.default_rng(1000 + seed).normal(0, 0.5, (2, len(shared)))
        p_value = compare_aucs(is_fake, shared + noise[0], shared + noise[1]).p_value
        found.append(p_value is not None and p_value < 0.05)
    assert 0.02 <= np.mean(found) <= 0.085


@few
@given(scored())
def test_a_ranking_metric_lies_within_its_interval_or_says_why_it_has_none(scored_: tuple[Flags, Scores]) -> None:
    for name, estimate in ranking(*scored_).items():
        if estimate.value is None or estimate.low is None or estimate.high is None:
            assert estimate.reason, name
        else:
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1, name


def test_the_bootstrap_agrees_with_resampled_images() -> None:
    """The same intervals from drawn images and scikit-learn's curves, with other random numbers."""
    is_fake, score = simulated(7, 80, 60, 1.5)
    rng, drawn = np.random.default_rng(8), []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(side), side.sum()) for side in (~is_fake, is_fake)])
        flagged, caught, _ = sk.roc_curve(is_fake[rows], score[rows], drop_intermediate=False)
        nearest = np.argmin(np.abs(flagged - (1 - caught)))
        drawn.append(
            (
                sk.average_precision_score(is_fake[rows], score[rows]),
                (flagged[nearest] + 1 - caught[nearest]) / 2,
                caught[flagged <= 0.05].max(),
            )
        )
    expected = np.quantile(drawn, (0.025, 0.975), axis=0).T
    intervals = bootstrap_intervals(is_fake, score, (0.05,))
    for found, (low, high) in zip(intervals.values(), expected, strict=True):
        assert found == (pytest.approx(low, abs=0.04), pytest.approx(high, abs=0.04))


def test_fakes_caught_are_less_certain_than_at_a_fixed_threshold() -> None:
    """The threshold comes from the same reals: its uncertainty belongs into the interval, and never narrows it."""
    is_fake, score = simulated(9, 400, 400, 2.0)
    estimate = ranking(is_fake, score)["fakes_caught_at_0.01"]
    assert estimate.count is not None
    assert estimate.low is not None
    assert estimate.high is not None
    low, high = wilson_interval(estimate.count, 400)
    assert estimate.low <= low
    assert estimate.high >= high
    assert estimate.high - estimate.low > 1.5 * (high - low)
    assert ranking(is_fake, score) == ranking(is_fake, score), "the same samples every time"


@pytest.mark.parametrize(("reals", "resolved"), [(99, []), (100, [0.01]), (199, [0.01]), (200, [0.005, 0.01])])
def test_a_fraction_of_less_than_one_real_is_undefined(reals: int, resolved: list[float]) -> None:
    is_fake = np.arange(reals + 30) >= reals
    ranks = ranking(is_fake, np.arange(reals + 30.0))
    assert [rate for rate in FLAGGED_RATES if ranks[f"fakes_caught_at_{rate:g}"].value is not None] == resolved
    if 0.005 not in resolved:
        reason = f"0.5% of {reals} reals is less than one image, at least 200 needed"
        assert ranks["fakes_caught_at_0.005"].reason == reason


def test_where_all_bootstrap_samples_agree_there_is_no_interval_but_fakes_caught_have_wilsons() -> None:
    is_fake = np.arange(400) >= 200
    ranks = ranking(is_fake, np.arange(400.0))
    for name in ("average_precision", "eer"):
        assert (ranks[name].low, ranks[name].high) == (None, None)
        assert ranks[name].reason == "no interval, as all bootstrap samples agree"
    caught = ranks["fakes_caught_at_0.005"]
    assert (caught.value, caught.low, caught.high) == (1, *wilson_interval(200, 200))


@few
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_intervals_do_not_depend_on_the_order_of_the_images(reals: int, fakes: int, seed: int) -> None:
    is_fake, score = simulated(seed, reals, fakes, 1.0)
    order = np.random.default_rng(seed).permutation(len(score))
    assert auc_interval(is_fake, score) == pytest.approx(auc_interval(is_fake[order], score[order]))
    assert bootstrap_intervals(is_fake, score, (0.1,)) == bootstrap_intervals(is_fake[order], score[order], (0.1,))


def test_the_interval_of_a_growing_count_is_wider_than_that_of_one_look_and_known_where_there_is_a_formula() -> None:
    assert anytime_interval(0, 0) == (0, 1)
    for images in (1, 30, 500):
        bound = 1 - (0.05 / (images + 1)) ** (1 / images)  # (1 - bound)^n = 0.05 B(1, n + 1)
        assert anytime_interval(0, images) == pytest.approx((0, bound))
        assert anytime_interval(images, images) == pytest.approx((1 - bound, 1))
    low, high = anytime_interval(25, 500)
    once_low, once_high = wilson_interval(25, 500)
    assert 0 < low < once_low < 0.05 < once_high < high < 0.12


def test_looking_again_and_again_does_not_make_a_canary_go_back() -> None:
    """Wilson's interval excludes the true proportion sooner or later; the other one holds in 95% of the streams."""
    rng, true, looks = np.random.default_rng(0), 0.05, range(30, 600, 20)
    streams = [np.cumsum(rng.random(600) < true) for _ in range(40)]
    excluded = {
        interval: sum(any(interval(int(stream[n - 1]), n)[0] > true for n in looks) for stream in streams)
        for interval in (anytime_interval, wilson_interval)
    }
    assert excluded[anytime_interval] <= 0.05 * len(streams)
    assert excluded[wilson_interval] > 0.05 * len(streams)
