import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from detector_core.errors import BrokenArtifact
from detector_core.evaluation import calibration
from detector_core.evaluation.calibration import (
    FAKES_PASSED_LIMITS,
    TEMPERATURE_RANGE,
    UNCALIBRATED,
    UNCERTAIN,
    VERDICTS,
    Calibration,
    choose,
    equal_cost_threshold,
    fit_temperature,
    lowest_rates_threshold,
    real_threshold,
    verdict,
    verdicts,
)
from detector_core.evaluation.metrics import Confusion
from detector_core.evaluation.report import summarize
from tests.support.scores import few

CHOSEN_ON = {"fingerprint": "f" * 64, "name": "tiny", "split": "valid", "n": 100, "weights_sha256": "w"}


def normal_logits(seed: int, distance: float, n: int) -> tuple[Any, Any]:
    """n logits of each class, normal, ``distance`` standard deviations apart."""
    draw = np.random.default_rng(seed)
    is_fake = np.repeat([False, True], n)
    return is_fake, (draw.normal(0, 1, 2 * n) + distance * (is_fake - 0.5)).astype(np.float32)


@st.composite
def split(draw: st.DrawFn) -> tuple[Any, Any]:
    n = draw(st.integers(2, 40))
    is_fake = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    is_fake[:2] = (True, False)
    logit = draw(st.lists(st.integers(-12, 12), min_size=n, max_size=n))
    return is_fake, np.array(logit, dtype=np.float32)


def test_the_default_is_one_threshold_at_0_5() -> None:
    assert [verdict(p, UNCALIBRATED) for p in (0.0, 0.4999, 0.5, 1.0)] == ["real", "real", "fake", "fake"]


def test_between_the_two_thresholds_the_verdict_is_uncertain() -> None:
    chosen = Calibration(real_below=0.2, fake_above=0.7)
    assert verdicts([0.19, 0.2, 0.69, 0.7], chosen).tolist() == ["real", "uncertain", "uncertain", "fake"]


@few
@given(split(), st.sampled_from([0.0, 3.0, -3.0]), st.floats(0, 1))
def test_no_verdict_contradicts_its_probability(split_: tuple[Any, Any], shift: float, p_fake: float) -> None:
    """``real`` is never said above 0.5 nor ``fake`` below it, however far the model's scores lie off center."""
    is_fake, logit = split_
    chosen = choose(is_fake, logit + shift, chosen_on=CHOSEN_ON)
    assert chosen.real_below <= 0.5 <= chosen.fake_above
    likely = "fake" if p_fake >= 0.5 else "real"
    assert verdict(p_fake, chosen) in (likely, "uncertain")


@pytest.mark.parametrize(
    ("older", "read", "verdicts_"),
    [
        ((0.69, 0.69), (0.5, 0.69), ["real", "uncertain", "uncertain", "fake"]),
        ((0.1, 0.3), (0.1, 0.5), ["uncertain", "fake", "fake", "fake"]),
        ((0.2, 0.6), (0.2, 0.6), ["uncertain", "uncertain", "fake", "fake"]),
    ],
)
def test_thresholds_of_an_older_version_are_moved_to_their_side_of_one_half(
    older: tuple[float, float], read: tuple[float, float], verdicts_: list[str]
) -> None:
    old = Calibration(real_below=older[0], fake_above=older[1])
    chosen = Calibration.from_dict(old.to_dict())
    assert (chosen.real_below, chosen.fake_above) == read
    p_fake = [0.45, 0.55, 0.65, 0.75]
    assert verdicts(p_fake, chosen).tolist() == verdicts(p_fake, old).tolist() == verdicts_


@few
@given(split())
def test_real_below_keeps_the_limit_on_fakes_passed(split_: tuple[Any, Any]) -> None:
    is_fake, logit = split_
    chosen = choose(is_fake, logit, chosen_on=CHOSEN_ON, max_fakes_passed=0.1)
    p_fake = chosen.p_fake(logit)
    assert 0 <= chosen.real_below <= chosen.fake_above <= 1
    passed = Confusion.from_scores(is_fake, p_fake, chosen.real_below).fakes_passed_rate.value
    assert passed is not None
    assert passed <= 0.1 + 1e-9
    assert Calibration.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@few
@given(split())
def test_the_threshold_of_lowest_rates_has_the_lowest_sum_of_error_rates(split_: tuple[Any, Any]) -> None:
    is_fake, logit = split_

    def cost(threshold: float) -> float:
        return float(np.mean(logit[is_fake] < threshold) + np.mean(logit[~is_fake] >= threshold))

    values = np.unique(logit)
    interior = [cost(value) for value in values[1:]]
    if interior:
        assert cost(lowest_rates_threshold(is_fake, logit)) == pytest.approx(min(interior))


def test_fake_above_is_steadier_than_the_threshold_of_lowest_rates() -> None:
    """Both classes are normal around -1 and 1, so the best threshold is 0, however many images each has."""
    steady, jumpy = [], []
    for seed in range(30):
        is_fake, logit = normal_logits(seed, 2.0, 150)
        fewer_fakes = np.flatnonzero(~is_fake | (np.arange(300) % 3 == 0))
        steady += [equal_cost_threshold(is_fake, logit), equal_cost_threshold(is_fake[fewer_fakes], logit[fewer_fakes])]
        jumpy.append(lowest_rates_threshold(is_fake, logit))
    assert np.mean(steady) == pytest.approx(0, abs=0.03)
    assert np.std(steady[::2]) < 0.75 * np.std(jumpy)


def test_scores_that_do_not_rise_with_the_label_get_the_threshold_of_lowest_rates() -> None:
    is_fake, logit = normal_logits(0, -3.0, 20)
    assert equal_cost_threshold(is_fake, logit) == lowest_rates_threshold(is_fake, logit)
    flat = np.zeros(4)
    assert equal_cost_threshold(np.array([True, True, False, False]), flat) == 0


@few
@given(split(), st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_real_threshold_is_the_highest_that_keeps_the_limit(split_: tuple[Any, Any], limit: float) -> None:
    is_fake, logit = split_
    threshold = real_threshold(is_fake, logit, limit)
    assert np.mean(logit[is_fake] < threshold) <= limit
    next_fake = np.sort(logit[is_fake & (logit >= threshold)])[0]
    assert np.mean(logit[is_fake] <= next_fake) > limit


@few
@given(split(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_higher_limit_leaves_fewer_images_uncertain(split_: tuple[Any, Any], one: float, other: float) -> None:
    """``max_fakes_passed`` moves ``real_below`` alone."""
    is_fake, logit = split_
    strict, lax = (
        choose(is_fake, logit, chosen_on=CHOSEN_ON, max_fakes_passed=limit) for limit in sorted((one, other))
    )
    assert (strict.temperature, strict.fake_above) == (lax.temperature, lax.fake_above)
    assert strict.real_below <= lax.real_below <= lax.fake_above
    uncertain = [(verdicts(chosen.p_fake(logit), chosen) == UNCERTAIN).sum() for chosen in (strict, lax)]
    assert uncertain[0] >= uncertain[1]


@few
@given(split(), split())
def test_the_labels_of_a_test_split_do_not_move_the_thresholds(valid: tuple[Any, Any], test: tuple[Any, Any]) -> None:
    """Verdicts rise with the score, and neither verdicts nor coverage depend on the labels."""
    chosen = choose(*valid, chosen_on=CHOSEN_ON)
    is_fake, logit = test
    names = verdicts(chosen.p_fake(np.sort(logit)), chosen)
    ranks = [VERDICTS.index(verdict) for verdict in names]
    assert ranks == sorted(ranks)
    reports = [
        summarize(pd.DataFrame({"label": np.where(fakes, "fake", "real"), "logit": logit}), chosen)
        for fakes in (is_fake, ~is_fake)
    ]
    for report in reports:
        assert report["calibration"]["real_below"] == chosen.real_below
        assert report["threshold"] == report["calibration"]["fake_above"] == chosen.fake_above
        assert report["with_uncertain"]["coverage"]["count"] == (names != UNCERTAIN).sum()
    assert reports[0]["with_uncertain"]["verdicts"]["real"] == reports[1]["with_uncertain"]["verdicts"]["fake"]


def test_a_small_split_without_errors_has_both_thresholds_in_the_gap() -> None:
    is_fake = np.repeat([False, True], 50)
    logit = np.where(is_fake, 4.0, -2.0) + np.tile(np.linspace(-1, 1, 50), 2)
    chosen = choose(is_fake, logit, chosen_on=CHOSEN_ON)
    assert TEMPERATURE_RANGE[0] < chosen.temperature < TEMPERATURE_RANGE[1]
    middle = expit(1 / chosen.temperature)  # the highest real is -1, the lowest fake 3
    assert (chosen.real_below, chosen.fake_above) == (0.5, pytest.approx(middle))
    assert not (verdicts(chosen.p_fake(logit), chosen) == UNCERTAIN).any()
    assert chosen.max_fakes_passed == FAKES_PASSED_LIMITS[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_model_calls_most_reals_real(seed: int) -> None:
    is_fake, logit = normal_logits(seed, 2.9, 50)  # AUC 0.98
    chosen = choose(is_fake, logit, chosen_on=CHOSEN_ON)
    assert chosen.real_below <= chosen.fake_above
    new_fake, new_logit = normal_logits(seed + 100, 2.9, 2000)
    names = verdicts(chosen.p_fake(new_logit), chosen)
    assert np.mean(names[~new_fake] == "real") > 0.5
    assert np.mean(names[new_fake] == "real") < 0.1


def test_one_unusual_fake_relaxes_the_limit_unless_it_is_given() -> None:
    is_fake = np.repeat([False, True], 50)
    logit = np.where(is_fake, 4.0, -2.0) + np.tile(np.linspace(-1, 1, 50), 2)
    logit[50] = -5  # a fake that looks more real than any real
    chosen = choose(is_fake, logit, chosen_on=CHOSEN_ON)
    assert chosen.max_fakes_passed == 0.02
    assert np.mean(verdicts(chosen.p_fake(logit[:50]), chosen) == "real") == 1
    strict = choose(is_fake, logit, chosen_on=CHOSEN_ON, max_fakes_passed=0.01)
    assert strict.max_fakes_passed == 0.01
    assert not (verdicts(strict.p_fake(logit), strict) == "real").any()


def test_a_random_model_calls_almost_nothing_real() -> None:
    is_fake, logit = normal_logits(0, 0.0, 500)
    chosen = choose(is_fake, logit, chosen_on=CHOSEN_ON)
    assert chosen.max_fakes_passed == FAKES_PASSED_LIMITS[0]
    assert Confusion.from_scores(is_fake, chosen.p_fake(logit), chosen.real_below).fakes_passed <= 5


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_recovered(temperature: float) -> None:
    draw = np.random.default_rng(1)
    logit = draw.normal(0, 2, 20_000)
    is_fake = draw.random(20_000) < expit(logit)
    assert fit_temperature(is_fake, logit * temperature) == pytest.approx(temperature, rel=0.05)
    chosen = choose(is_fake, logit * temperature, chosen_on=CHOSEN_ON)
    assert chosen.fit["ece_after"] < 0.02
    assert chosen.fit["brier_after"] <= chosen.fit["brier_before"] + 1e-6


@pytest.mark.parametrize("logits", [np.zeros(10), np.linspace(-1e4, 1e4, 10), np.linspace(1e-30, 2e-30, 10)])
def test_degenerate_scores_give_a_valid_calibration(logits: Any) -> None:
    is_fake = np.arange(10) % 2 == 1
    chosen = choose(is_fake, logits.astype(np.float32), chosen_on=CHOSEN_ON)
    assert Calibration.from_dict(chosen.to_dict()) == chosen
    assert TEMPERATURE_RANGE[0] <= chosen.temperature <= TEMPERATURE_RANGE[1]


@pytest.mark.parametrize("fake", [True, False])
def test_with_one_class_the_calibration_is_the_default(fake: bool) -> None:
    assert choose(np.full(5, fake), np.zeros(5), chosen_on=CHOSEN_ON) == UNCALIBRATED


def test_a_calibration_belongs_to_the_weights_it_was_chosen_for(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert calibration.load(folder, "w") == UNCALIBRATED
    chosen = Calibration(temperature=2.0, real_below=0.2, fake_above=0.7, chosen_on=CHOSEN_ON)
    calibration.save(folder, chosen)
    assert calibration.load(folder, "w") == chosen
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    with pytest.raises(BrokenArtifact, match="other weights"):
        calibration.load(folder, "other")


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"real_below": 0.8},
        {"fake_above": 1.5},
        {"format": 9},
        {"odd": 1},
        {"temperature": "2"},
        {"chosen_on": "x"},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    values = {**Calibration(real_below=0.2, fake_above=0.7, chosen_on=CHOSEN_ON).to_dict(), **change}
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    with pytest.raises(BrokenArtifact, match=r"calibration\.json cannot be used"):
        calibration.load(str(tmp_path), "w")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"temperature": 1')
    with pytest.raises(BrokenArtifact, match=r"calibration\.json cannot be used"):
        calibration.load(str(tmp_path), "w")
