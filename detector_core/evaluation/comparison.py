"""The paper's comparison: Tables III, IV and V of our runs next to the paper's, and which variant wins.

Works on plain values: on what runs and their evaluations write (``artifact.json``, ``report.json``,
``scores.parquet``), and on ``paper.json``, the paper's metrics recomputed from its confusion matrices. Not in this
module: training and evaluating (``jobs.reproduce``), and drawing (:mod:`detector_core.evaluation.comparison_html`).

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

from detector_core import labels
from detector_core.config import INIT_KEYWORDS, RunSpec
from detector_core.errors import BadData
from detector_core.evaluation import significance
from detector_core.evaluation.metrics import METRICS, Confusion, short_label
from detector_core.networks.variants import spec_for

PAPER: dict[str, Any] = json.loads(files("detector_core.evaluation").joinpath("paper.json").read_text())
PAPER_TRAINING_IMAGES = 100_000
"""Section III-F of the paper."""
SETTINGS = {
    "epochs": "optim.epochs",
    "learning rate": "optim.learning_rate",
    "batch size": "optim.batch_size",
    "image size": "preprocess.image_size",
    "initial weights": "model.init",
}
"""The settings that a reader needs before comparing with the paper: label and field of the RunSpec."""
TRAINING_IMAGES = "training images"


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """One trained and evaluated run.

    Attributes:
        spec: what it was trained with.
        report: its ``report.json`` on the test split.
        scores: its ``scores.parquet``.
        training: the ``training`` of its ``artifact.json``, with ``best``, the row of ``metrics.csv`` that was kept.
        history: all rows of ``metrics.csv``.
    """

    spec: RunSpec
    report: dict[str, Any]
    scores: pd.DataFrame
    training: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def variant(self) -> str:
        """The name of its variant."""
        return self.spec.variant

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.spec.seed

    @property
    def confusion(self) -> Confusion:
        """Its confusion matrix on the test split, as in Tables III and IV."""
        return Confusion(**self.report["confusion"])

    def correct(self) -> "pd.Series[bool]":
        """Whether each image was classified correctly, indexed by path."""
        called_fake = self.scores["p_fake"].to_numpy() >= self.report["threshold"]
        return pd.Series(called_fake == labels.is_fake(self.scores["label"]), index=self.scores["path"])


def compare(runs: list[EvaluatedRun]) -> dict[str, Any]:
    """The content of ``comparison.json``, as plain values.

    Returns:
        ``rows``, one per run: counts, metrics with intervals, AUC and cost; ``means``, one per variant: mean and spread
        over the seeds; ``mcnemar``, one per pair of variants (between their first seeds, not corrected for the number
        of pairs); ``winner``; ``settings``, one per run; ``differences``, the settings that are not the paper's.

    Raises:
        BadData: the runs were evaluated on different images, or the test split has no fakes.
    """
    variants = list(dict.fromkeys(run.variant for run in runs))
    firsts = [next(run for run in runs if run.variant == variant) for variant in variants]
    pairs = [mcnemar(first, second) for first, second in itertools.combinations(firsts, 2)]
    means = [_mean([run for run in runs if run.variant == variant]) for variant in variants]
    return {
        "rows": [_row(run) for run in runs],
        "means": means,
        "mcnemar": pairs,
        "winner": winner(means, pairs),
        "settings": [{"variant": run.variant, "seed": run.seed, **settings(run)} for run in runs],
        "differences": sorted({name for run in runs for name in differences(run)}),
    }


def settings(run: EvaluatedRun) -> dict[str, dict[str, Any]]:
    """Each of :data:`SETTINGS` as ``{"used": ..., "default": ...}``.

    The default is that of the variant: the paper's value, or this project's where the paper gives none.
    """
    used, default = run.spec.flat(), spec_for(run.variant).flat()
    if used["model.init"] not in INIT_KEYWORDS:
        used["model.init"] = "a file"  # its path means nothing to other readers
    values = {label: {"used": used[field], "default": default[field]} for label, field in SETTINGS.items()}
    return {**values, TRAINING_IMAGES: {"used": _training_images(run), "default": PAPER_TRAINING_IMAGES}}


def differences(run: EvaluatedRun) -> list[str]:
    """The settings in which a run differs from its variant's defaults, except seed and micro-batch.

    Returns:
        Names of fields of the RunSpec, and :data:`TRAINING_IMAGES` if the number of images differs from the paper's.
    """
    used, default = run.spec.flat(), spec_for(run.variant).flat()
    names = [field for field in default if used[field] != default[field]]
    ignored = {"seed", "optim.micro_batch"}
    if default["model.init"] == "hub" and used["model.init"] != "none":
        ignored.add("model.init")  # a file, presumably with the published weights
    different = [name for name in names if name not in ignored]
    return different + [TRAINING_IMAGES] * (_training_images(run) != PAPER_TRAINING_IMAGES)


def _training_images(run: EvaluatedRun) -> int:
    return sum(run.report["data"]["counts"]["train"].values())


def _row(run: EvaluatedRun) -> dict[str, Any]:
    return {
        "variant": run.variant,
        "seed": run.seed,
        **vars(run.confusion),
        "metrics": {name: estimate.to_dict() for name, estimate in run.confusion.metrics().items()},
        "auc": run.report["ranking"]["auc"]["value"],
        "epochs": run.training["epochs"],
        "best_epoch": run.training["best"]["epoch"],
        "seconds": run.training["seconds"],
        "images_per_s": statistics.median(row["images_per_s"] for row in run.history),
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in run.history),
    }


def _mean(runs: list[EvaluatedRun]) -> dict[str, Any]:
    """Mean, minimum and maximum of each metric over the seeds of a variant; None if it is not defined for all."""
    row: dict[str, Any] = {"variant": runs[0].variant, "seeds": [run.seed for run in runs]}
    for name in METRICS:
        values = [getattr(run.confusion, name).value for run in runs]
        defined = None not in values
        row[name] = statistics.mean(values) if defined else None
        row[f"{name}_spread"] = [min(values), max(values)] if defined else None
    return row


def mcnemar(first: EvaluatedRun, second: EvaluatedRun) -> dict[str, Any]:
    """McNemar's exact two-sided test: whether two models differ in how often they are correct on the same images.

    Returns:
        ``only_first_correct``, ``only_second_correct`` and ``p_value`` over all images, and the same under ``fakes``
        over the fakes alone, which shows whether one of the two lets fewer fakes pass.

    Raises:
        BadData: the two were evaluated on different images.

    """
    first_correct, second_correct = first.correct(), second.correct()
    if set(first_correct.index) != set(second_correct.index):
        raise BadData(
            f"{first.variant} and {second.variant} were evaluated on different images: evaluate both again with "
            f"the same data set"
        )
    second_correct = second_correct.reindex(first_correct.index)
    fake = labels.is_fake(first.scores["label"])
    return {
        "variants": [first.variant, second.variant],
        **significance.mcnemar(first_correct, second_correct),
        "fakes": significance.mcnemar(first_correct[fake], second_correct[fake]),
    }


def winner(means: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The winner by the paper's rule: the fewest fakes passed; ties go to the higher accuracy.

    Returns:
        ``variant``, and ``within_noise``, the other variants of which McNemar's test does not say that they pass more
        fakes.

    Raises:
        BadData: the test split has no fakes.
    """
    if any(row["fakes_passed_rate"] is None for row in means):
        raise BadData("the test split has no fakes: no variant can win")
    best = min(means, key=lambda row: (row["fakes_passed_rate"], -row["accuracy"]))["variant"]
    close = [
        name
        for pair in pairs
        if best in pair["variants"] and not _catches_more(best, pair)
        for name in pair["variants"]
        if name != best
    ]
    return {"variant": best, "within_noise": close}


def _catches_more(variant: str, pair: dict[str, Any]) -> bool:
    """Whether a variant catches significantly more fakes than the other of a pair.

    The variant with the lowest mean over seeds may be the worse one between the first seeds, which are those tested.
    """
    test = pair["fakes"]
    first_better: bool = test["only_first_correct"] > test["only_second_correct"]
    significant: bool = test["p_value"] <= significance.SIGNIFICANCE
    return significant and first_better == (variant == pair["variants"][0])


def table_5(means: list[dict[str, Any]]) -> pd.DataFrame:
    """Table V in percent: one row per variant and source (ours, paper), the paper's columns and both error rates."""
    rows = []
    for mean in means:
        variant = mean["variant"]
        rows.append({"variant": variant, "source": "ours", **{name: mean[name] for name in METRICS}})
        if variant in PAPER["confusions"]:
            paper = paper_confusion(variant).metrics()
            rows.append({"variant": variant, "source": "paper", **{name: paper[name].value for name in METRICS}})
    table = pd.DataFrame(rows)
    table[list(METRICS)] = 100 * table[list(METRICS)].astype(np.float64)
    return table


def paper_confusion(variant: str) -> Confusion:
    """The confusion matrix that the paper prints for a variant (Tables III and IV)."""
    counts = PAPER["confusions"][variant]
    return Confusion(**{name: count for name, count in counts.items() if name != "table"})


def misprints(variant: str) -> list[str]:
    """The metrics of a variant that the paper prints differently from its own confusion matrix, in words."""
    return [
        f"{short_label(row['metric'])} is printed as {row['printed']}: {row['why']}"
        for row in PAPER["misprints"]
        if row["variant"] == variant
    ]
