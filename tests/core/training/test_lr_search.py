"""What a search chooses, and what it writes of it."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector_core.errors import BadConfig
from detector_core.training import lr_search
from detector_core.training.lr_search import ENDED, FAILED, STOPPED, Trial


def epoch(number: int, val_loss: float, val_auc: float | None = 0.5, passed: float | None = 0.5) -> dict[str, object]:
    return {"epoch": number, "val_loss": val_loss, "val_auc": val_auc, "fakes_passed_at_1pct": passed}


def trial(rate: float, *history: dict[str, object], status: str = ENDED) -> Trial:
    return Trial(name=f"t{rate:g}", learning_rate=rate, status=status, seconds=60.0, history=list(history))


def test_the_default_space_is_table_ii() -> None:
    assert lr_search.TABLE_II_RATES == (1e-3, 2e-4, 1e-4)
    assert lr_search.bounds() == pytest.approx((1e-5, 1e-2))


def test_the_kept_epoch_is_judged_whatever_the_objective() -> None:
    one = trial(1e-3, epoch(1, 0.5, 0.7), epoch(2, 0.4, 0.8), epoch(3, 0.6, 0.9))
    assert one.score("val_loss") == 0.4
    assert one.score("val_auc") == 0.8
    assert lr_search.kept(one.history[:1])["kept_val_auc"] == 0.7
    assert lr_search.kept(one.history)["kept_val_auc"] == 0.8


@pytest.mark.parametrize(("objective", "rate"), [("val_loss", 1e-3), ("val_auc", 1e-4), ("fakes_passed_at_1pct", 1e-5)])
def test_each_objective_chooses_in_its_direction(objective: str, rate: float) -> None:
    trials = [
        trial(1e-3, epoch(1, 0.1, 0.6, 0.9)),
        trial(1e-4, epoch(1, 0.2, 0.9, 0.8)),
        trial(1e-5, epoch(1, 0.3, 0.7, 0.1)),
    ]
    found = lr_search.best(trials, objective)
    assert found is not None
    assert found.learning_rate == rate


def test_trials_without_the_objective_never_win() -> None:
    nothing = [trial(1e-3, status=FAILED), trial(1e-4, epoch(1, 0.2, None)), trial(1e-5, epoch(1, 0.2, math.nan))]
    assert lr_search.best(nothing, "val_auc") is None
    found = lr_search.best([*nothing, trial(1e-6, epoch(1, 0.9, 0.1))], "val_auc")
    assert found is not None
    assert found.learning_rate == 1e-6


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.randoms())
def test_the_choice_does_not_depend_on_the_order(losses: list[float], random: object) -> None:
    trials = [trial(10.0**-index, epoch(1, loss)) for index, loss in enumerate(losses)]
    found = lr_search.best(trials, "val_loss")
    random.shuffle(trials)  # type: ignore[attr-defined]
    assert lr_search.best(trials, "val_loss") == found
    assert found is not None
    assert found.score("val_loss") == min(losses)


def test_the_table_of_trials_has_a_row_for_every_epoch() -> None:
    trials = [trial(1e-3, epoch(1, 0.5), epoch(2, 0.4)), trial(1e-4, status=FAILED)]
    frame = lr_search.rows(trials, {"variant": "resnet68", "optim": {"learning_rate": 1.0, "epochs": 2}})
    assert frame["trial"].tolist() == ["t0.001", "t0.001", "t0.0001"]
    assert frame["optim.learning_rate"].tolist() == [1e-3, 1e-3, 1e-4]
    assert frame["status"].tolist() == [ENDED, ENDED, FAILED]
    assert frame["val_loss"].tolist()[:2] == [0.5, 0.4]
    assert math.isnan(frame["val_loss"].iloc[2])
    assert "0.4000" in lr_search.table(trials, "val_loss")


@pytest.mark.parametrize("objective", lr_search.OBJECTIVES)
def test_the_plot_is_drawn_also_where_a_trial_has_no_figure(objective: str) -> None:
    trials = [trial(1e-3, epoch(1, 0.5)), trial(1e-4, epoch(1, 0.6), status=STOPPED), trial(1e-5, status=FAILED)]
    for some in (trials, trials[2:]):
        png = lr_search.plot(some, objective, "resnet68 on faces", 1e-4)
        assert Image.open(io.BytesIO(png)).size[0] > 500


@pytest.mark.parametrize("text", ["", "fast", "1e-3,", "0", "-1e-3", "nan", "inf", "1e-3,0.001"])
def test_rates_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="--rates"):
        lr_search.rates(text)


def test_rates_are_taken_as_given() -> None:
    assert lr_search.rates("1e-2, 3e-4") == (1e-2, 3e-4)
    assert lr_search.rates(None) == lr_search.TABLE_II_RATES
