"""The search of jobs.tune without Ray: its search space, objectives, choice of the best trial and tables.

By default it is the learning-rate search of Table II; other fields of the specification may vary with the rate.

Trials are compared on the validation split alone, at the epoch whose weights they keep (the lowest validation loss),
because that is the model which training with the trial's learning rate yields.

Not in this module: the plot (:mod:`detector_core.training.plots`), because training workers import this module and
should not have to import matplotlib; how trials are run (``jobs.tune``).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from detector_core.config import RunSpec
from detector_core.errors import BadConfig
from detector_core.networks.variants import VARIANTS, spec_for

OBJECTIVES = {"val_loss": "min", "fakes_passed_at_1pct": "min", "val_auc": "max"}
"""Columns of an epoch's report that a search can optimize, and whether lower ("min") or higher ("max") is better."""
KEPT_PREFIX = "kept_"
TABLE_2_LEARNING_RATES = tuple(sorted({spec_for(name).optim.learning_rate for name in VARIANTS}, reverse=True))
"""The distinct learning rates of Table II, highest first: the default search space of every variant."""
SEARCH_MARGIN = 10.0
"""A log-uniform search reaches this factor below the lowest and above the highest learning rate of Table II."""
NOT_VARIED = {
    "optim.learning_rate": "--learning-rates or --search loguniform vary the learning rate",
    "seed": "the best of several seeds is the luckiest: train them with jobs.train --seed and compare their mean",
    "variant": "search each variant by itself",
}
"""Fields that a search does not vary, and what to do instead."""
COMPLETED, STOPPED, FAILED = "completed", "stopped early", "failed"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate that was tried, perhaps with other settings.

    Attributes:
        settings: the other fields that the search varies, by dotted name.
        status: ``completed``, ``stopped early`` (by the scheduler) or ``failed``; ``waiting`` or ``running`` before.
        history: the reports of its epochs (:class:`detector_core.training.loop.EpochReport`) as dicts.
        error: why it failed.
    """

    name: str
    learning_rate: float
    status: str
    seconds: float
    history: list[dict[str, Any]]
    error: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def settings_text(self) -> str:
        """``weight_decay=0.05, class_weights=balanced``; empty if nothing but the learning rate varies."""
        return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.settings.items())

    def score(self, objective: str) -> float | None:
        """The objective at the kept epoch; None if no epoch has finished or the objective is undefined there."""
        if not self.history:
            return None
        value = _kept_epoch(self.history)[objective]
        return None if value is None or math.isnan(value) else float(value)


def kept_objectives(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Each objective at the epoch with the lowest validation loss so far, as ``kept_NAME``."""
    kept = _kept_epoch(history)
    return {f"{KEPT_PREFIX}{name}": kept[name] for name in OBJECTIVES}


def loguniform_bounds() -> tuple[float, float]:
    """The lowest and the highest learning rate of a log-uniform search."""
    return min(TABLE_2_LEARNING_RATES) / SEARCH_MARGIN, max(TABLE_2_LEARNING_RATES) * SEARCH_MARGIN


def parse_learning_rates(text: str | None) -> tuple[float, ...]:
    """The numbers in ``--learning-rates``, a comma-separated list; those of Table II if it is not given.

    Raises:
        BadConfig: not numbers, not above 0, or the same number twice.
    """
    if text is None:
        return TABLE_2_LEARNING_RATES
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    valid = all(math.isfinite(value) and value > 0 for value in values)
    if not values or not valid or len(set(values)) < len(values):
        raise BadConfig(f"--learning-rates {text}: give distinct numbers above 0, e.g. 1e-3,2e-4,1e-4")
    return values


def parse_vary(items: Sequence[str], spec: RunSpec) -> dict[str, list[Any]]:
    """The fields and values of ``--vary FIELD=VALUE,VALUE,...``.

    Raises:
        BadConfig: an item is malformed, a field does not exist or is not one to choose by a validation split, or a
            value is not valid.
    """
    varied: dict[str, list[Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        values = [_value(part) for part in text.split(",")]
        if not equals or len(values) < 2 or len({json.dumps(value) for value in values}) < len(values):
            raise BadConfig(
                f"--vary {item}: give FIELD=VALUE,VALUE,... with distinct values, e.g. optim.weight_decay=0,0.05"
            )
        if name in NOT_VARIED or name in varied:
            raise BadConfig(f"--vary {item}: {NOT_VARIED.get(name, 'the field is given twice')}")
        for value in values:
            spec.replace({name: value})  # raises BadConfig
        varied[name] = values
    return varied


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def best(trials: list[Trial], objective: str) -> Trial | None:
    """The trial with the best objective, on a tie the one with the lower learning rate; None if no trial has one."""
    sign = 1 if OBJECTIVES[objective] == "min" else -1
    scored = [
        (sign * score, trial.learning_rate, trial) for trial in trials if (score := trial.score(objective)) is not None
    ]
    return min(scored, key=lambda item: item[:2])[2] if scored else None


def format_table(trials: list[Trial], objective: str) -> str:
    """A text table for the terminal, one trial per line."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.name for trial in trials],
        "learning rate": [f"{trial.learning_rate:.3g}" for trial in trials],
        "settings": [trial.settings_text for trial in trials],
        "status": [trial.status for trial in trials],
        "epochs": [len(trial.history) for trial in trials],
        f"{objective} (kept epoch)": [_format_score(trial.score(objective)) for trial in trials],
        "minutes": [f"{trial.seconds / 60:.1f}" for trial in trials],
    }
    if not any(columns["settings"]):
        del columns["settings"]
    return pd.DataFrame(columns).to_string(index=False)


def to_frame(trials: list[Trial], spec: dict[str, Any]) -> pd.DataFrame:
    """The content of ``trials.csv``: one row per epoch of each trial, next to the trial's status and RunSpec.

    A trial without a finished epoch has one row, whose metrics are empty.
    """
    spec_columns = pd.json_normalize(spec).iloc[0].to_dict()
    rows = []
    for trial in trials:
        trial_columns = {
            "trial": trial.name, "status": trial.status, "trial_seconds": trial.seconds, "error": trial.error,
        }  # fmt: skip
        settings: dict[Any, Any] = {**spec_columns, "optim.learning_rate": trial.learning_rate, **trial.settings}
        rows += [{**trial_columns, **epoch, **settings} for epoch in (trial.history or [{}])]
    return pd.DataFrame(rows)


def _kept_epoch(history: list[dict[str, Any]]) -> dict[str, Any]:
    return min(history, key=lambda row: row["val_loss"])


def _format_score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
