"""detector_core.evaluation.gate: each error by itself, by source, and fewer errors on held-out tags."""

import numpy as np
import pytest

from detector_core.evaluation.gate import Paired, check, unchanged

HELD_OUT = Paired(
    is_fake_N=np.array([True] * 4 + [False] * 4),
    live_N=np.array([False] * 4 + [False] * 4),
    new_N=np.array([True] * 3 + [False] * 5),
)
"""Four errors of the live model, one of the new."""


def old_test(passed: int = 5, flagged: int = 5, new_passed: int = 5, new_flagged: int = 5, n: int = 100) -> Paired:
    """A test split of n fakes and n reals with so many errors; those of the two models overlap."""

    def calls(fakes_passed: int, reals_flagged: int) -> np.ndarray:
        return np.concatenate([np.arange(n) >= fakes_passed, np.arange(n) < reals_flagged])

    is_fake = np.arange(2 * n) < n
    return Paired(is_fake_N=is_fake, live_N=calls(passed, flagged), new_N=calls(new_passed, new_flagged))


def test_a_model_that_is_as_good_on_the_old_test_and_better_on_tags_passes() -> None:
    conditions = check(old_test(), HELD_OUT)
    assert [condition.name for condition in conditions] == [
        "fakes passed on the test split",
        "reals flagged on the test split",
        "errors on held-out tags",
    ]
    assert all(condition.passed for condition in conditions)
    assert [(c.live, c.new, c.images) for c in conditions] == [(5, 5, 100), (5, 5, 100), (4, 1, 8)]
    assert conditions[0].to_dict()["p_value"] == 1.0


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"new_passed": 7}, []),  # two more of 100: allowed, and within chance (p = 0.25)
        ({"new_passed": 8}, ["fakes passed on the test split"]),  # within chance, but more than 2 points
        ({"new_flagged": 8}, ["reals flagged on the test split"]),
        ({"new_flagged": 0, "new_passed": 20}, ["fakes passed on the test split"]),
        ({"n": 1000, "new_passed": 11}, ["fakes passed on the test split"]),  # 0.6 points, but p = 0.016
        ({"n": 1000, "new_passed": 9}, []),  # p = 0.0625
    ],
)
def test_each_error_on_the_old_test_is_compared_by_itself(changes: dict[str, int], failed: list[str]) -> None:
    conditions = check(old_test(**changes), HELD_OUT)
    assert [condition.name for condition in conditions if not condition.passed] == failed


def test_a_model_that_is_not_better_on_the_tags_fails_and_says_by_how_much() -> None:
    same = Paired(is_fake_N=HELD_OUT.is_fake_N, live_N=HELD_OUT.live_N, new_N=HELD_OUT.live_N)
    *_, last = check(old_test(), same)
    assert not last.passed
    assert str(last) == "FAILED  errors on held-out tags: 4 -> 4 of 8 (p = 1.000; fewer than before)"


def test_a_loss_on_one_source_is_not_hidden_by_a_gain_on_another() -> None:
    split = old_test(passed=10, new_passed=0)
    worse = split.new_N.copy()
    worse[50:60] = False  # fakes of the second source pass
    sources = np.array((["a"] * 50 + ["b"] * 50) + ["camera"] * 100)
    paired = Paired(is_fake_N=split.is_fake_N, live_N=split.live_N, new_N=worse, source_N=sources)
    conditions = check(paired, HELD_OUT)
    assert [c.name for c in conditions if not c.passed] == ["fakes passed on b"]
    assert "fakes passed on a" in [c.name for c in conditions]
    assert "reals flagged on camera" in [c.name for c in conditions]
    one = Paired(is_fake_N=split.is_fake_N, live_N=split.live_N, new_N=split.new_N, source_N=np.array(["a"] * 200))
    assert len(check(one, HELD_OUT)) == 3


def test_a_canary_set_keeps_every_verdict_and_the_changed_ones_are_named() -> None:
    live = np.array(["real", "fake", "uncertain"])
    names = ["a.jpg", "b.jpg", "c.jpg"]
    same = unchanged(names, live, live)
    assert same.passed
    assert str(same) == "passed  verdicts changed on the canary set: 0 -> 0 of 3 (none may change)"
    other = unchanged(names, live, np.array(["real", "uncertain", "uncertain"]))
    assert not other.passed
    assert str(other).endswith("0 -> 1 of 3 (none may change: b.jpg was fake, would be uncertain)")
    many = unchanged(names * 3, np.array(["real"] * 9), np.array(["fake"] * 9))
    assert many.limit.endswith("b.jpg was real, would be fake and 4 more")
