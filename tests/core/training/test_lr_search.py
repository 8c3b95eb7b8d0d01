"""detector_core.training.lr_search: the search space, the choice of the best trial, and its tables."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.errors import BadConfig
from detector_core.networks.variants import VARIANTS, spec_for
from detector_core.training import lr_search
from detector_core.training.lr_search import COMPLETED, FAILED, Trial


def epoch(
    number: int, val_loss: float, val_auc: float | None = 0.5, fakes_passed: float | None = 0.5
) -> dict[str, object]:
    return {"epoch": number, "val_loss": val_loss, "val_auc": val_auc, "fakes_passed_at_1pct": fakes_passed}


def trial(learning_rate: float, *history: dict[str, object], status: str = COMPLETED) -> Trial:
    return Trial(
        name=f"t{learning_rate:g}", learning_rate=learning_rate, status=status, seconds=60.0, history=list(history)
    )


def test_the_default_search_space_is_table_2() -> None:
    default = lr_search.TABLE_2_LEARNING_RATES
    assert set(default) == {spec_for(name).optim.learning_rate for name in VARIANTS}
    assert list(default) == sorted(set(default), reverse=True), "each value once, highest first"
    assert lr_search.loguniform_bounds() == pytest.approx((default[-1] / 10, default[0] * 10))


def test_every_objective_is_read_at_the_epoch_with_the_lowest_validation_loss() -> None:
    completed = trial(1e-3, epoch(1, 0.5, 0.7), epoch(2, 0.4, 0.8), epoch(3, 0.6, 0.9))
    assert completed.score("val_loss") == 0.4
    assert completed.score("val_auc") == 0.8
    assert lr_search.kept_objectives(completed.history[:1])["kept_val_auc"] == 0.7
    assert lr_search.kept_objectives(completed.history)["kept_val_auc"] == 0.8


@pytest.mark.parametrize(
    ("objective", "learning_rate"), [("val_loss", 1e-3), ("val_auc", 1e-4), ("fakes_passed_at_1pct", 1e-5)]
)
def test_each_objective_is_minimized_or_maximized(objective: str, learning_rate: float) -> None:
    trials = [
        trial(1e-3, epoch(1, 0.1, 0.6, 0.9)),
        trial(1e-4, epoch(1, 0.2, 0.9, 0.8)),
        trial(1e-5, epoch(1, 0.3, 0.7, 0.1)),
    ]
    best = lr_search.best(trials, objective)
    assert best is not None
    assert best.learning_rate == learning_rate


def test_other_fields_vary_only_with_values_that_are_valid() -> None:
    spec = spec_for("lite0")
    assert lr_search.parse_vary(["optim.weight_decay=0,0.05", "optim.freeze=blocks.2,blocks.3"], spec) == {
        "optim.weight_decay": [0, 0.05],
        "optim.freeze": ["blocks.2", "blocks.3"],
    }
    assert lr_search.parse_vary([], spec) == {}
    for items, message in (
        (["optim.weight_decay"], "give FIELD=VALUE,VALUE"),
        (["optim.weight_decay=0,0"], "with distinct values"),
        (["optim.weight_decay=0,-1"], "weight_decay is -1.0: it must be 0 or more"),
        (["optim.speed=1,2"], "RunSpec has no field 'optim.speed'"),
        (["optim.ema=0,0.9", "optim.ema=0,0.5"], "the field is given twice"),
        (["optim.learning_rate=0.1,0.2"], "--learning-rates or --search loguniform"),
    ):
        with pytest.raises(BadConfig, match=re.escape(message)):
            lr_search.parse_vary(items, spec)


def test_settings_are_in_both_tables() -> None:
    trials = [
        Trial(name=f"t{decay:g}", learning_rate=1e-3, status=COMPLETED, seconds=1.0, history=[epoch(1, 0.5 - decay)],
              settings={"optim.weight_decay": decay}) for decay in (0.0, 0.05)
    ]  # fmt: skip
    assert "weight_decay=0.05" in lr_search.format_table(trials, "val_loss")
    frame = lr_search.to_frame(trials, spec_for("lite0").to_dict())
    assert frame["optim.weight_decay"].tolist() == [0.0, 0.05]
    assert "settings" not in lr_search.format_table([trial(1e-3)], "val_loss")


def test_a_trial_without_the_objective_is_never_the_best() -> None:
    unscored = [trial(1e-3, status=FAILED), trial(1e-4, epoch(1, 0.2, None)), trial(1e-5, epoch(1, 0.2, math.nan))]
    assert lr_search.best(unscored, "val_auc") is None
    best = lr_search.best([*unscored, trial(1e-6, epoch(1, 0.9, 0.1))], "val_auc")
    assert best is not None
    assert best.learning_rate == 1e-6


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.randoms())
def test_the_best_trial_does_not_depend_on_the_order_of_trials(losses: list[float], random: object) -> None:
    trials = [trial(10.0**-index, epoch(1, loss)) for index, loss in enumerate(losses)]
    best = lr_search.best(trials, "val_loss")
    random.shuffle(trials)  # type: ignore[attr-defined]
    assert lr_search.best(trials, "val_loss") == best
    assert best is not None
    assert best.score("val_loss") == min(losses)


def test_trials_csv_has_a_row_for_every_epoch_and_one_for_a_trial_without_any() -> None:
    trials = [trial(1e-3, epoch(1, 0.5), epoch(2, 0.4)), trial(1e-4, status=FAILED)]
    frame = lr_search.to_frame(trials, {"variant": "resnet68", "optim": {"learning_rate": 1.0, "epochs": 2}})
    assert frame["trial"].tolist() == ["t0.001", "t0.001", "t0.0001"]
    assert frame["optim.learning_rate"].tolist() == [1e-3, 1e-3, 1e-4]
    assert frame["status"].tolist() == [COMPLETED, COMPLETED, FAILED]
    assert frame["val_loss"].tolist()[:2] == [0.5, 0.4]
    assert math.isnan(frame["val_loss"].iloc[2])
    assert "0.4000" in lr_search.format_table(trials, "val_loss")


@pytest.mark.parametrize("text", ["", "fast", "1e-3,", "0", "-1e-3", "nan", "inf", "1e-3,0.001"])
def test_invalid_learning_rates_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="--learning-rates"):
        lr_search.parse_learning_rates(text)


def test_learning_rates_are_parsed_in_the_given_order() -> None:
    assert lr_search.parse_learning_rates("1e-2, 3e-4") == (1e-2, 3e-4)
    assert lr_search.parse_learning_rates(None) == lr_search.TABLE_2_LEARNING_RATES
