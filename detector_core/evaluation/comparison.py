"""The paper's comparison: Tables III, IV and V of our runs beside the paper's, and which variant wins.

Works on what runs and judgements leave (``artifact.json``, ``report.json``, ``scores.parquet``) as plain values, and
on ``paper.json``, the paper's own figures recomputed from its matrices. Left out: training and judging
(``jobs.reproduce``), drawing (:mod:`detector_core.evaluation.comparison_html`).

Source: paper section IV, Tables III to V.
"""

import itertools
import json
import statistics
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from detector_core import labels
from detector_core.config import RunSpec
from detector_core.errors import BadData
from detector_core.evaluation.metrics import METRICS, Confusion, short_label
from detector_core.networks.variants import spec_for

NOISE = 0.05
"""A difference with a larger p-value is called within noise."""
PAPER: dict[str, Any] = json.loads(files("detector_core.evaluation").joinpath("paper.json").read_text())
PAPER_TRAINED_ON = 100_000
"""Training images of the paper (section III-F)."""
SETTINGS = {
    "epochs": "optim.epochs",
    "learning rate": "optim.learning_rate",
    "batch": "optim.batch_size",
    "image size": "preprocess.image_size",
    "first weights": "model.init",
}
"""What a reader must know before comparing with the paper, and the field of the RunSpec that says it."""
TRAINED_ON = "training images"


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """One trained and judged run.

    Attributes:
        spec: what it was trained with.
        report: its ``report.json`` on the test split.
        scores: its ``scores.parquet``.
        training: of its ``artifact.json``, with ``best``, the row of ``metrics.csv`` that was kept.
        history: all rows of ``metrics.csv``.
    """

    spec: RunSpec
    report: dict[str, Any]
    scores: pd.DataFrame
    training: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def variant(self) -> str:
        """Its name."""
        return self.spec.variant

    @property
    def seed(self) -> int:
        """Of its training."""
        return self.spec.seed

    @property
    def confusion(self) -> Confusion:
        """The counts of Tables III and IV."""
        return Confusion(**self.report["confusion"])

    def right(self) -> "pd.Series[bool]":
        """Whether each image was called what it is, by path."""
        called_fake = self.scores["p_fake"].to_numpy() >= self.report["threshold"]
        return pd.Series(called_fake == labels.is_fake(self.scores["label"]), index=self.scores["path"])


def compare(runs: list[EvaluatedRun]) -> dict[str, Any]:
    """Everything ``comparison.json`` says, as plain values.

    Returns:
        ``rows``, one a run: counts, rates with intervals, AUC and cost; ``means``, one a variant: mean and spread over
        seeds; ``mcnemar``, one a pair of variants (of each one's first seed); ``winner``; ``settings``, one a run;
        ``otherwise``, what is not as in the variants' rows.

    Raises:
        BadData: the runs were judged on different images.
    """
    variants = list(dict.fromkeys(run.variant for run in runs))
    firsts = [next(run for run in runs if run.variant == variant) for variant in variants]
    pairs = [mcnemar(one, other) for one, other in itertools.combinations(firsts, 2)]
    means = [_mean([run for run in runs if run.variant == variant]) for variant in variants]
    return {
        "rows": [_row(run) for run in runs],
        "means": means,
        "mcnemar": pairs,
        "winner": winner(means, pairs),
        "settings": [{"variant": run.variant, "seed": run.seed, **settings(run)} for run in runs],
        "otherwise": sorted({name for run in runs for name in otherwise(run)}),
    }


def settings(run: EvaluatedRun) -> dict[str, dict[str, Any]]:
    """Each of SETTINGS as ``{"ours": ..., "row": ...}``; the variant's row is the paper's, ours where it has none."""
    ours, row = run.spec.flat(), spec_for(run.variant).flat()
    init = "model.init"
    ours[init] = ours[init] if ours[init] in ("package", "hub", "none") else "a file"  # its path says nothing to others
    found = {name: {"ours": ours[field], "row": row[field]} for name, field in SETTINGS.items()}
    return {**found, TRAINED_ON: {"ours": _trained_on(run), "row": PAPER_TRAINED_ON}}


def otherwise(run: EvaluatedRun) -> list[str]:
    """Fields of a RunSpec, and TRAINED_ON, in which a run is not its variant's row; seed and micro-batch aside."""
    ours, row = run.spec.flat(), spec_for(run.variant).flat()
    found = [field for field in row if ours[field] != row[field] and field not in ("seed", "optim.micro_batch")]
    if row["model.init"] == "hub" != ours["model.init"] != "none":
        found.remove("model.init")  # the published weights from a file, as far as one can tell
    return found + [TRAINED_ON] * (_trained_on(run) != PAPER_TRAINED_ON)


def _trained_on(run: EvaluatedRun) -> int:
    return sum(run.report["data"]["counts"]["train"].values())


def _row(run: EvaluatedRun) -> dict[str, Any]:
    best = run.training["best"]
    return {
        "variant": run.variant,
        "seed": run.seed,
        **vars(run.confusion),
        "metrics": {name: rate.to_dict() for name, rate in run.confusion.metrics().items()},
        "auc": run.report["ranking"]["auc"]["value"],
        "epochs": run.training["epochs"],
        "best_epoch": best["epoch"],
        "seconds": run.training["seconds"],
        "images_per_s": statistics.median(row["images_per_s"] for row in run.history),
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in run.history),
    }


def _mean(runs: list[EvaluatedRun]) -> dict[str, Any]:
    """Means over the seeds of a variant, and the lowest and highest; None where a rate is not defined."""
    found: dict[str, Any] = {"variant": runs[0].variant, "seeds": [run.seed for run in runs]}
    for name in METRICS:
        values = [getattr(run.confusion, name).value for run in runs]
        defined = None not in values
        found[name] = statistics.mean(values) if defined else None
        found[f"{name}_spread"] = [min(values), max(values)] if defined else None
    return found


def mcnemar(one: EvaluatedRun, other: EvaluatedRun) -> dict[str, Any]:
    """Whether two models differ in how often they are right on the same images; exact and two-sided.

    Returns:
        ``only_first_right``, ``only_second_right`` and ``p_value`` over all images, and the same under ``fakes`` over
        the fakes alone, which says whether one truly passes fewer of them.

    Raises:
        BadData: they were judged on different images.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    first, second = one.right(), other.right()
    if set(first.index) != set(second.index):
        raise BadData(f"{one.variant} and {other.variant} were judged on different images: judge them again")
    second = second.reindex(first.index)
    fake = labels.is_fake(one.scores["label"])
    tested = {"variants": [one.variant, other.variant], **_discordant(first, second)}
    return {**tested, "fakes": _discordant(first[fake], second[fake])}


def _discordant(first: "pd.Series[bool]", second: "pd.Series[bool]") -> dict[str, Any]:
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    count = only_first + only_second
    p_value = float(binomtest(only_first, count).pvalue) if count else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": p_value}


def winner(means: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The paper's rule: fewest fakes passed, ties by accuracy; and the others that pass hardly more, within noise.

    Raises:
        BadData: the test split has no fakes.
    """
    if any(row["fakes_passed_rate"] is None for row in means):
        raise BadData("the test split has no fakes: no variant can win")
    first = min(means, key=lambda row: (row["fakes_passed_rate"], -row["accuracy"]))["variant"]
    close = [
        name
        for pair in pairs
        if first in pair["variants"] and pair["fakes"]["p_value"] > NOISE
        for name in pair["variants"]
        if name != first
    ]
    return {"variant": first, "within_noise": close}


def table_5(means: list[dict[str, Any]]) -> pd.DataFrame:
    """Ours beside the paper's, percent: a row a variant and source, the columns of Table V and both errors."""
    rows = []
    for mean in means:
        variant = mean["variant"]
        rows.append({"variant": variant, "source": "ours", **{name: mean[name] for name in METRICS}})
        if variant in PAPER["confusions"]:
            rates = paper_confusion(variant).metrics()
            rows.append({"variant": variant, "source": "paper", **{name: rates[name].value for name in METRICS}})
    table = pd.DataFrame(rows)
    table[list(METRICS)] = 100 * table[list(METRICS)].astype(np.float64)
    return table


def paper_confusion(variant: str) -> Confusion:
    """The paper's matrix of a variant (Tables III and IV)."""
    counts = PAPER["confusions"][variant]
    return Confusion(**{name: count for name, count in counts.items() if name != "table"})


def misprints(variant: str) -> list[str]:
    """What the paper prints otherwise than its own matrices say, in words."""
    return [
        f"{short_label(row['metric'])} is printed as {row['printed']}: {row['why']}"
        for row in PAPER["misprints"]
        if row["variant"] == variant
    ]
