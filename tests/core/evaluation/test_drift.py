"""detector_core.evaluation.drift: the index by hand, and which streams of scores drift."""

import math

import numpy as np
import pytest

from detector_core.evaluation.drift import BINS, STEP, WINDOW, ScoreDrift, fractions, stability_index

HISTOGRAM = ([120, 40, 20, 10, 4, 2, 1, 1, 1, 1], [1, 1, 1, 1, 2, 4, 10, 20, 40, 120])


def test_the_index_by_hand() -> None:
    real_T = np.array([0.8, 0.2] + [1e-12] * 8)
    fake_T = np.array([1e-12] * 8 + [0.2, 0.8])
    observed_T = np.array([0.4, 0.1] + [1e-12] * 6 + [0.1, 0.4])
    assert stability_index(observed_T, real_T, fake_T) == pytest.approx(0, abs=1e-6), "half of each"
    moved_T = np.array([0.6, 0.4] + [1e-12] * 8)
    by_hand = (0.6 - 0.8) * math.log(0.6 / 0.8) + (0.4 - 0.2) * math.log(0.4 / 0.2)
    assert stability_index(moved_T, real_T, fake_T) == pytest.approx(by_hand, rel=1e-6)


def test_fine_bins_are_summed_and_none_is_empty() -> None:
    assert fractions([5, 5] + [0] * 38)[0] == pytest.approx(10.5 / 15)
    assert fractions([0] * BINS).tolist() == [0.1] * BINS


def scores(reals: int, fakes: int, seed: int = 0) -> list[float]:
    """Scores drawn as those of the model's own test are distributed."""
    draw = np.random.default_rng(seed)
    bins = [
        draw.choice(BINS, count, p=np.array(counts) / sum(counts))
        for count, counts in zip((reals, fakes), HISTOGRAM, strict=True)
    ]
    mixed = draw.permutation(np.concatenate(bins))
    return ((mixed + draw.random(len(mixed))) / BINS).tolist()


@pytest.mark.parametrize("fakes", [0, 20, 1000, 2000])
def test_another_share_of_fakes_is_no_drift(fakes: int) -> None:
    drift = ScoreDrift(HISTOGRAM)
    for p_fake in scores(2000 - fakes, fakes):
        drift.add(p_fake)
    assert 0 < drift.index < 0.1


def test_a_generator_with_scores_in_the_middle_is_and_the_window_forgets_it() -> None:
    drift = ScoreDrift(HISTOGRAM)
    for p_fake in np.random.default_rng(1).uniform(0.3, 0.7, WINDOW):
        drift.add(float(p_fake))
    assert drift.index > 0.25
    for p_fake in scores(WINDOW, 0):
        drift.add(p_fake)
    assert drift.index < 0.1


def test_few_scores_and_a_model_without_a_report_say_nothing() -> None:
    drift = ScoreDrift(HISTOGRAM)
    said = [drift.add(0.5) for _ in range(WINDOW // 4)]
    assert said.index(True) == WINDOW // 4 - 1
    assert [drift.add(0.5) for _ in range(STEP)].count(True) == 1
    unknown = ScoreDrift(None)
    assert not any(unknown.add(0.5) for _ in range(WINDOW))
    assert unknown.index == 0
