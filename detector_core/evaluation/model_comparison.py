"""Models next to each other on one set of images: metrics with intervals, paired tests, and whether one is better.

Each model's own threshold weighs both errors in its own way, so error rates at it cannot be compared. Models are
compared by ROC AUC (DeLong's paired test) and by the fakes they pass when all flag the same share of the reals of their
validation splits (McNemar's test); p-values are adjusted for the number of pairs (Holm). With several seeds both are
tests of the means over the seeds, and their variance is that of the images and that of the seeds: a lead of one lucky
seed is no lead.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from detector_core import labels
from detector_core.data.seen import NEAR_LIMIT, Overlap
from detector_core.errors import BadData
from detector_core.evaluation.intervals import Flags, Scores, auc, compare_aucs, compare_means
from detector_core.evaluation.metrics import ERROR_RATES, Confusion, ranking, undefined_reason
from detector_core.evaluation.significance import SIGNIFICANCE, compare_seeds, holm, mcnemar, pairs_of
from detector_core.labels import FAKE, REAL

REALS_FLAGGED = 0.05
"""The share of the validation reals that every model flags at the matched threshold, by default."""
COMPARED = ("auc", "average_precision", "eer", *ERROR_RATES)
"""The metrics of each run; the error rates are those at its own frozen threshold."""
MATCHED = ("matched_fakes_passed_rate", "matched_reals_flagged_rate")
TESTS = ("auc", "matched", "seeds")
"""The tests of a pair of models: the difference in mean ROC AUC and in fakes passed at the matched share of reals, over
images and seeds, and Welch's t-test of the ROC AUC over seeds alone, for these images."""
MATCHED_LABELS = {MATCHED[0]: "fakes passed, matched", MATCHED[1]: "reals flagged, matched"}


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A run's scores of the images that are compared.

    Attributes:
        name: of the run.
        model: what it is a run of; runs of one model differ in their seed alone.
        scores: columns path, label, logit, p_fake.
        threshold: an image is called fake from this p_fake on.
        matched_limit: an image is flagged if its logit is above it, at the matched share of reals; None with
            ``no_limit``, the reason.
        overlap: how many of the images the run was trained or chosen on.
        sources: the metrics by source, as in its report (:func:`detector_core.evaluation.by_source.evaluate_sources`);
            None if all images are of one source.
    """

    name: str
    model: str
    seed: int
    scores: pd.DataFrame
    threshold: float
    matched_limit: float | None = None
    no_limit: str | None = None
    overlap: Overlap = field(default_factory=lambda: Overlap(exact=0, near=0))
    sources: dict[str, Any] | None = None

    @property
    def is_fake(self) -> Flags:
        """The label of each image."""
        return labels.is_fake(self.scores["label"])

    @property
    def logits(self) -> Scores:
        """The logit of each image."""
        return self.scores["logit"].to_numpy(dtype=np.float64)

    def caught(self) -> Flags:
        """Whether each fake is flagged at the matched threshold, which there must be."""
        assert self.matched_limit is not None
        return (self.logits > self.matched_limit)[self.is_fake]


def compare_models(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """Compares runs on the same images.

    Returns:
        ``images`` of each class; ``rows``, one per run: :data:`COMPARED` and :data:`MATCHED`, each as value, interval
        and reason, ``overlap`` and ``sources``; ``models``, one per model: mean and standard deviation of each metric
        over its seeds; ``pairs``, one per pair of models: :data:`TESTS` with ``p_holm``; ``winner``, see
        :func:`find_winner`.

    Raises:
        BadData: the runs were scored on different images.
    """
    runs = [_in_order_of(runs[0], run) for run in runs]
    rows = [_row(run) for run in runs]
    names = list(dict.fromkeys(run.model for run in runs))
    models = [_over_seeds([row for row in rows if row["model"] == name]) for name in names]
    runs_of = {name: [run for run in runs if run.model == name] for name in names}
    pairs = [_pair(runs_of[first], runs_of[second]) for first, second in pairs_of(names)]
    for test in TESTS:
        for pair, p_value in zip(pairs, holm([pair[test]["p_value"] for pair in pairs]), strict=True):
            pair[test]["p_holm"] = p_value
    is_fake = runs[0].is_fake
    return {
        "images": {REAL: int((~is_fake).sum()), FAKE: int(is_fake.sum())},
        "rows": rows,
        "models": models,
        "pairs": pairs,
        "winner": find_winner(rows, models, pairs),
    }


def _in_order_of(first: ScoredRun, run: ScoredRun) -> ScoredRun:
    """The run with its images in the order of another's. Raises BadData if they are not the same images."""
    ours, theirs = run.scores.set_index("path"), first.scores["path"]
    if len(ours) != len(theirs) or set(ours.index) != set(theirs):
        raise BadData(
            f"{first.name} and {run.name} were evaluated on different images: evaluate both again with the same data "
            f"set"
        )
    return replace(run, scores=ours.loc[theirs].reset_index())


def _row(run: ScoredRun) -> dict[str, Any]:
    is_fake = run.is_fake
    logit = run.logits
    own = Confusion.from_scores(is_fake, run.scores["p_fake"].to_numpy(), run.threshold)
    estimates = ranking(is_fake, logit) | own.metrics()
    values = {name: estimates[name].to_dict() for name in COMPARED}
    if run.matched_limit is None:
        values |= {name: {"value": None, "reason": run.no_limit} for name in MATCHED}
    else:
        matched = Confusion.from_scores(is_fake, logit, float(np.nextafter(run.matched_limit, np.inf)))
        rates = (matched.fakes_passed_rate, matched.reals_flagged_rate)
        values |= {name: rate.to_dict() for name, rate in zip(MATCHED, rates, strict=True)}
    facts = {"run": run.name, "model": run.model, "seed": run.seed, "overlap": run.overlap.to_dict()}
    return {**facts, **values, "sources": run.sources}


def _over_seeds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each metric over the seeds of a model; the latter is None with one seed."""
    result: dict[str, Any] = {"model": rows[0]["model"], "seeds": [row["seed"] for row in rows]}
    for name in (*COMPARED, *MATCHED):
        values = [row[name]["value"] for row in rows]
        if None in values:
            reason = next(row[name]["reason"] for row in rows if row[name]["value"] is None)
            result[name] = {"mean": None, "deviation": None, "reason": reason}
        else:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            result[name] = {"mean": statistics.mean(values), "deviation": deviation}
    return result


def _pair(first: list[ScoredRun], second: list[ScoredRun]) -> dict[str, Any]:
    """The tests between two models, each with the runs of its seeds."""
    is_fake = first[0].is_fake
    reason = undefined_reason(int((~is_fake).sum()), int(is_fake.sum()))
    seeds: dict[str, Any] = {"p_value": None, "reason": reason}
    auc_test = dict(seeds)
    if not reason:
        scores = [np.stack([run.logits for run in runs]) for runs in (first, second)]
        auc_test = compare_aucs(is_fake, *scores).to_dict()
        seeds = compare_seeds(*([auc(is_fake, score_N) for score_N in score_SN] for score_SN in scores))
    names = [first[0].model, second[0].model]
    return {"models": names, "auc": auc_test, "matched": _matched_test(first, second), "seeds": seeds}


def _matched_test(first: list[ScoredRun], second: list[ScoredRun]) -> dict[str, Any]:
    """Whether two models pass a different share of the fakes at the matched threshold.

    With one seed of each by McNemar's exact test; with more, a test of the difference in the mean share over seeds.
    """
    without = next((run for run in (*first, *second) if run.matched_limit is None), None)
    if without:
        return {"p_value": None, "reason": f"{without.name}: {without.no_limit}"}
    if not first[0].is_fake.any():
        return {"p_value": None, "reason": "there are no fakes"}
    ours, theirs = (np.stack([run.caught() for run in runs]) for runs in (first, second))
    if len(first) == len(second) == 1:
        return mcnemar(ours[0], theirs[0])
    passed = [[float(1 - caught_N.mean()) for caught_N in caught_SN] for caught_SN in (ours, theirs)]
    difference_N = theirs.mean(axis=0) - ours.mean(axis=0)
    variance = float(difference_N.var(ddof=1)) / len(difference_N) if len(difference_N) > 1 else 0.0
    return compare_means(*passed, image_variance=variance).to_dict()


def find_winner(
    rows: list[dict[str, Any]], models: list[dict[str, Any]], pairs: list[dict[str, Any]]
) -> dict[str, Any]:
    """The model whose mean ROC AUC is significantly higher than that of every other, if there is one.

    A model that cannot win is still one to be better than, unless it has seen the images: its ROC AUC says nothing.

    Returns:
        ``model``, None if there is no winner; ``leader``, the model with the highest mean ROC AUC among those that may
        win; ``reason``, why there is no winner; ``not_distinguished``, the models whose ROC AUC is not significantly
        lower than the leader's, except those that have seen the images; ``excluded``, the models that cannot win, each
        with the reason.
    """
    seen = _reasons(rows, _seen_reason)
    excluded = _reasons(rows, _unfit_reason) | seen
    candidates = [model for model in models if model["model"] not in excluded]
    result: dict[str, Any] = {"model": None, "leader": None, "not_distinguished": [], "excluded": excluded}
    if not candidates:
        return {**result, "reason": "no model may win: " + "; ".join(f"{n} {why}" for n, why in excluded.items())}
    leader = max(candidates, key=lambda model: model["auc"]["mean"])["model"]
    close = [
        name
        for pair in pairs
        if leader in pair["models"]
        for name in pair["models"]
        if name != leader and name not in seen and not _is_better(leader, pair)
    ]
    result |= {"leader": leader, "not_distinguished": close}
    if close:
        names = ", ".join(f"{name} (which cannot win itself)" if name in excluded else name for name in close)
        return {
            **result,
            "reason": f"{leader} leads the models that may win, but its ROC AUC is not significantly higher than that "
            f"of {names}",
        }
    return {**result, "model": leader}


def _is_better(model: str, pair: dict[str, Any]) -> bool:
    """Whether the mean ROC AUC of a model is significantly higher than that of the other of a pair."""
    test = pair["auc"]
    if test["p_holm"] is None or test["p_holm"] > SIGNIFICANCE:
        return False
    return bool((test["difference"] > 0) == (model == pair["models"][0]))


def _reasons(rows: list[dict[str, Any]], reason_of: Callable[[dict[str, Any]], str | None]) -> dict[str, str]:
    """The first reason that a run of each model gives, by model."""
    reasons: dict[str, str] = {}
    for row in rows:
        reason = reason_of(row)
        if reason:
            reasons.setdefault(row["model"], reason)
    return reasons


def _seen_reason(row: dict[str, Any]) -> str | None:
    """How a run has seen the images before; None if it has not, or if that is not known."""
    overlap = row["overlap"]
    if overlap["exact"]:
        return f"was trained or chosen on {overlap['exact']:,} of these images"
    if (overlap["near"] or 0) > NEAR_LIMIT * overlap["images"]:
        return f"was trained or chosen on near-duplicates of {overlap['near']:,} of these images"
    return None


def _unfit_reason(row: dict[str, Any]) -> str | None:
    """Why a run cannot win whatever the others are; None if it can."""
    area, flagged = row["auc"], row["reals_flagged_rate"]["value"]
    if area["value"] is None:
        return f"has no ROC AUC: {area['reason']}"
    if area["low"] <= 0.5 <= area["high"]:
        return f"may be guessing: the interval of its ROC AUC, {area['low']:.3f} to {area['high']:.3f}, holds 0.5"
    if area["value"] < 0.5:
        return f"orders the images worse than guessing, ROC AUC {area['value']:.3f}"
    if flagged > 0.5:
        return f"flags {100 * flagged:.0f}% of the reals at its threshold"
    return None
