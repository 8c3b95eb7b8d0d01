"""What a flag is worth, by hand, by the paper's tables, and by drawing images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.evaluation.comparison import paper_confusion
from detector_core.evaluation.flag_value import describe, flag_values, of_confusion, of_report, short
from tests.support.scores import few


def test_by_hand() -> None:
    """One fake in ten, 90% of the fakes and 10% of the reals flagged: of 100 images 9 + 9 are flagged."""
    values = {entry["one_in"]: entry["right"]["value"] for entry in flag_values(10, 100, 90, 100)}
    assert values[10] == pytest.approx(0.5)
    assert values[2] == pytest.approx(0.9)
    assert values[2000] == pytest.approx(0.9 / (0.9 + 1999 * 0.1))


def test_the_papers_winner_is_the_wrong_model_where_fakes_are_rare() -> None:
    worth = {name: of_confusion(paper_confusion(name))[0] for name in ("resnet68-cutout", "inception_resnet_v2-cutout")}
    assert {name: short(entry["right"]) for name, entry in worth.items()} == {
        "resnet68-cutout": "0.9 (0.8-1.0)",
        "inception_resnet_v2-cutout": "41 (26-61)",
    }


def test_the_interval_covers_the_true_value() -> None:
    """A detector that truly catches 90% of the fakes and flags 4% of the reals, tested on 300 of each, many times."""
    rng = np.random.default_rng(0)
    true = 0.9 / (0.9 + 9 * 0.04)
    covered = []
    for flagged, caught in zip(rng.binomial(300, 0.04, 200), rng.binomial(300, 0.9, 200), strict=True):
        right = flag_values(int(flagged), 300, int(caught), 300)[2]["right"]
        covered.append(right["low"] <= true <= right["high"])
    assert 0.9 <= np.mean(covered) <= 0.99


@few
@given(st.integers(1, 80), st.integers(1, 80), st.data())
def test_more_fakes_make_a_flag_worth_more(reals: int, fakes: int, data: st.DataObject) -> None:
    flagged, caught = data.draw(st.integers(0, reals)), data.draw(st.integers(0, fakes))
    rights = [entry["right"] for entry in flag_values(flagged, reals, caught, fakes)]
    if not flagged + caught:
        assert {right["reason"] for right in rights} == {"no image was flagged"}
        return
    for right in rights:
        assert 0 <= right["low"] <= right["value"] <= right["high"] <= 1
    for name in ("low", "value", "high"):
        values = [right[name] for right in rights]
        assert values == sorted(values)


def test_without_a_false_flag_the_lower_bound_still_says_what_the_sample_cannot() -> None:
    right = flag_values(0, 30, 30, 30)[0]["right"]
    assert right["value"] == 1
    assert right["low"] < 0.02, "30 reals say little about one flag in thousands"


@pytest.mark.parametrize(("reals", "fakes", "reason"), [(0, 5, "there are no reals"), (5, 0, "there are no fakes")])
def test_with_one_class_it_is_undefined(reals: int, fakes: int, reason: str) -> None:
    entries = flag_values(min(reals, 1), reals, min(fakes, 1), fakes)
    assert {entry["right"]["reason"] for entry in entries} == {reason}
    assert describe(entries)[0] == ("1 image in 2,000 is fake", f"undefined: {reason}")


def test_a_report_without_counts_says_nothing() -> None:
    assert of_report({"metrics": {}}) == []
