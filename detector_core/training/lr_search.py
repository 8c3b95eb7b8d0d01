"""The learning-rate search of Table II, without Ray: its space, its objectives, the choice, the table and the plot.

A trial is judged by the validation split alone, at the epoch whose weights are kept (lowest validation loss): that is
the model which training with its rate yields.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from detector_core.errors import BadConfig
from detector_core.networks.variants import VARIANTS, spec_for

OBJECTIVES = {"val_loss": "min", "fakes_passed_at_1pct": "min", "val_auc": "max"}
"""Column of an epoch's report: whether less or more of it is better."""
KEPT = "kept_"
TABLE_II_RATES = tuple(sorted({spec_for(name).optim.learning_rate for name in VARIANTS}, reverse=True))
"""The rates that Table II found, over all variants: the default space of each."""
AROUND = 10.0
"""``loguniform`` searches from the least of Table II's rates divided by this to the largest times this."""
ENDED, STOPPED, FAILED = "ended", "stopped early", "failed"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate tried.

    Attributes:
        status: ``ended``, ``stopped early`` (by the scheduler), ``failed``, or ``waiting``, ``running`` meanwhile.
        history: the reports of its epochs (:class:`detector_core.training.loop.EpochReport`).
        error: why it failed.
    """

    name: str
    learning_rate: float
    status: str
    seconds: float
    history: list[dict[str, Any]]
    error: str = ""

    def score(self, objective: str) -> float | None:
        """The objective at the kept epoch; None before an epoch has ended, or where it is not defined."""
        if not self.history:
            return None
        value = min(self.history, key=lambda row: row["val_loss"])[objective]
        return None if value is None or math.isnan(value) else float(value)


def kept(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Each objective at the epoch with the lowest validation loss so far, as ``kept_NAME``."""
    best = min(history, key=lambda row: row["val_loss"])
    return {f"{KEPT}{name}": best[name] for name in OBJECTIVES}


def bounds() -> tuple[float, float]:
    """The least and the largest rate of ``loguniform``."""
    return min(TABLE_II_RATES) / AROUND, max(TABLE_II_RATES) * AROUND


def rates(text: str | None) -> tuple[float, ...]:
    """``--rates`` as numbers; Table II's by default.

    Raises:
        BadConfig: not numbers above 0, or one twice.
    """
    if text is None:
        return TABLE_II_RATES
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or any(not (math.isfinite(rate) and rate > 0) for rate in found) or len(set(found)) < len(found):
        raise BadConfig(f"--rates {text}: write different numbers above 0, e.g. 1e-3,2e-4,1e-4")
    return found


def best(trials: list[Trial], objective: str) -> Trial | None:
    """The trial with the best objective, the lower rate where two are equal; None where none has one."""
    sign = 1 if OBJECTIVES[objective] == "min" else -1
    scored = [
        (sign * score, trial.learning_rate, trial) for trial in trials if (score := trial.score(objective)) is not None
    ]
    return min(scored, key=lambda item: item[:2])[2] if scored else None


def table(trials: list[Trial], objective: str) -> str:
    """The trials for a terminal, one a line."""
    shown = pd.DataFrame(
        {
            "trial": [trial.name for trial in trials],
            "learning rate": [f"{trial.learning_rate:.3g}" for trial in trials],
            "status": [trial.status for trial in trials],
            "epochs": [len(trial.history) for trial in trials],
            f"{objective} (kept epoch)": [_number(trial.score(objective)) for trial in trials],
            "minutes": [f"{trial.seconds / 60:.1f}" for trial in trials],
        }
    )
    return shown.to_string(index=False)


def rows(trials: list[Trial], spec: dict[str, Any]) -> pd.DataFrame:
    """``trials.csv``: a row for every epoch of every trial, one without figures for a trial that ended none."""
    fields = pd.json_normalize(spec).iloc[0].to_dict()
    found = []
    for trial in trials:
        what = {"trial": trial.name, "status": trial.status, "trial_seconds": trial.seconds, "error": trial.error}
        told = {**fields, "optim.learning_rate": trial.learning_rate}
        found += [{**what, **epoch, **told} for epoch in (trial.history or [{}])]
    return pd.DataFrame(found)


def plot(trials: list[Trial], objective: str, title: str, table_ii: float | None) -> bytes:
    """A PNG: objective against rate, a point a trial, the best marked, Table II's rate as a line."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for status, marker, colour in ((ENDED, "o", "tab:blue"), (STOPPED, "x", "tab:grey"), (FAILED, "v", "tab:red")):
        points = [
            (trial.learning_rate, score)
            for trial in trials
            if trial.status == status and (score := trial.score(objective)) is not None
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=colour, label=status, zorder=3)
    winner = best(trials, objective)
    score = winner.score(objective) if winner else None
    if winner is not None and score is not None:
        axes.scatter(
            [winner.learning_rate],
            [score],
            s=200, facecolors="none", edgecolors="tab:green", label=f"best: {winner.learning_rate:.3g}", zorder=4,
        )  # fmt: skip
    if table_ii is not None:
        axes.axvline(table_ii, color="tab:orange", linestyle=":", label=f"Table II: {table_ii:g}")
    better = "lower" if OBJECTIVES[objective] == "min" else "higher"
    axes.set(
        title=title, xscale="log", xlabel="learning rate", ylabel=f"{objective} on validation ({better} is better)"
    )
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
