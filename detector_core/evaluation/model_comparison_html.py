"""The comparison of models on an HTML page that opens offline, and for a terminal.

Reads what :func:`detector_core.evaluation.model_comparison.compare_models` returns, and computes nothing itself.
"""

from typing import Any

import pandas as pd

from detector_core.evaluation.baselines import BASELINES
from detector_core.evaluation.html_page import escape, interval_below, page, table, warnings
from detector_core.evaluation.model_comparison import COMPARED, MATCHED
from detector_core.evaluation.model_comparison_tables import LABELS, describe_winner, run_table, source_table
from detector_core.evaluation.report_text import format_difference, format_estimate, format_number, format_p
from detector_core.evaluation.significance import SIGNIFICANCE
from detector_core.labels import FAKE, REAL


def render_page(sets: list[dict[str, Any]], title: str, notes: list[str]) -> str:
    """A page with one section per set of images.

    Args:
        sets: :func:`compare_models` of each set, with ``name``, ``reals_flagged``, the matched share, and ``warnings``,
            what a reader must know first of its images.
        notes: what a reader must know first.
    """
    parts = [f"<h1>{escape(title)}</h1>", warnings(notes), _overview(sets)]
    for compared in sets:
        parts += [f"<h2>{escape(compared['name'])}</h2>", *sections(compared)]
    return page(title, parts)


def _overview(sets: list[dict[str, Any]]) -> str:
    """Models x sets: the mean ROC AUC over seeds, and what is won on each set."""
    names = list(dict.fromkeys(model["model"] for compared in sets for model in compared["models"]))
    aucs = [{model["model"]: model["auc"] for model in compared["models"]} for compared in sets]
    rows = [[name, *(_mean("auc", of[name]) if name in of else "" for of in aucs)] for name in names]
    rows.append(["winner", *(compared["winner"]["model"] or "none" for compared in sets)])
    text = "<p>ROC AUC of each model on each set; mean and standard deviation over seeds where there are several.</p>"
    return text + table(("model", *(compared["name"] for compared in sets)), rows)


def sections(compared: dict[str, Any]) -> list[str]:
    """The HTML of the comparison on one set: warnings, verdict, runs, sources, seeds, pairs and baselines."""
    images = compared["images"]
    parts = [
        warnings(compared["warnings"]),
        f"<p><b>{escape(describe_winner(compared))}.</b> {images[REAL]:,} real and {images[FAKE]:,} fake images.</p>",
        f"<p>95% confidence intervals in brackets: DeLong for ROC AUC, bootstrap for average precision and EER, Wilson "
        f"for proportions. Rates at a model's own threshold weigh both errors as the model does, so they cannot be "
        f"compared; matched rates can: every model flags at most {compared['reals_flagged']:.1%} of the reals of its "
        f"validation split.</p>",
        _wide_table(*run_table(compared)),
    ]
    sources = source_table(compared)
    if sources[1]:
        parts += [
            "<p>By source, at each model's own threshold. A source of one class is ranked against all images of the "
            "other class. The means of fakes passed and of both ranking metrics are over the sources with fakes, and "
            "count no source that was left out of training.</p>",
            _wide_table(*sources),
        ]
    if any(len(model["seeds"]) > 1 for model in compared["models"]):
        parts += [
            "<p>Mean and standard deviation over the seeds of each model:</p>",
            _wide_table(*_seed_table(compared)),
        ]
    if compared["pairs"]:
        parts += [f"<p>{_pair_text(compared)}</p>", _wide_table(*_pair_table(compared))]
    if compared.get("baselines"):
        parts += [
            "<p>Baselines without a network, logistic regressions fitted on the training split: on file facts (size, "
            "format, compression, brightness) and on the radial power spectrum. What a model has learnt is what its "
            "mean ROC AUC has above them.</p>",
            _wide_table(*_baseline_table(compared)),
        ]
    return parts


def _pair_text(compared: dict[str, Any]) -> str:
    """What the tests of the pairs are."""
    if all(len(model["seeds"]) == 1 for model in compared["models"]):
        tests = (
            "the difference in ROC AUC (DeLong's paired test), and in fakes passed at the matched share of reals "
            "(McNemar's exact test). Each model has one seed: the tests tell whether other images would give the same "
            "order, not whether another training would."
        )
    else:
        tests = (
            "the differences in mean ROC AUC and in mean fakes passed at the matched share of reals. Their variance "
            "is that of the images (DeLong's paired components) and that of the seeds; a model with one seed is taken "
            "to vary as much as the other. Over seeds alone: Welch's t-test of the ROC AUC on these images."
        )
    return (
        f"Pairs of models: {tests} p-values are adjusted for the number of pairs, {len(compared['pairs'])} (Holm); "
        f"above {SIGNIFICANCE:g} a difference may be chance."
    )


def _wide_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return table(header, map(interval_below, rows))


def format_sets(sets: list[dict[str, Any]]) -> str:
    """The runs of every set and the verdicts, for a terminal."""
    lines = []
    for compared in sets:
        images = compared["images"]
        lines.append(f"{compared['name']}: {images[REAL]:,} real and {images[FAKE]:,} fake images")
        lines += [f"  !! {warning}" for warning in compared["warnings"]]
        for header, rows in (run_table(compared), source_table(compared)):
            if rows:
                lines.append(pd.DataFrame(rows, columns=list(header)).to_string(index=False))
        for baseline in compared.get("baselines", []):
            name = f"baseline {BASELINES[baseline['name']]} of {baseline['trained_on']}"
            lines.append(f"  {name}: ROC AUC {format_number(baseline['auc'])}")
        lines.append(f"  {describe_winner(compared)}")
    return "\n".join(lines)


def _seed_table(compared: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = (*COMPARED, *MATCHED)
    rows = [
        (
            f"{model['model']}, {len(model['seeds'])} seed{'s' * (len(model['seeds']) > 1)}",
            *(_mean(name, model[name]) for name in names),
        )
        for model in compared["models"]
    ]
    return ("model", *(LABELS[name] for name in names)), rows


def _pair_table(compared: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = (
        *("models", "difference in ROC AUC", "p (DeLong)"),
        *("fakes passed, matched", "p (matched)", "p over seeds alone"),
    )
    rows: list[tuple[str, ...]] = []
    for pair in compared["pairs"]:
        auc, matched, seeds = pair["auc"], pair["matched"], pair["seeds"]
        if "only_first_correct" in matched:
            first, second = matched["only_second_correct"], matched["only_first_correct"]
            passed = f"{first:,} only by the first, {second:,} only by the second"
        else:
            passed = format_difference(matched, percent=True)
        cells = (
            *(format_difference(auc), _p_value(auc["p_holm"]), passed),
            *(_p_value(matched["p_holm"]), _p_value(seeds["p_holm"])),
        )
        rows.append((" / ".join(pair["models"]), *cells))
    return header, rows


def _baseline_table(compared: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One column per baseline: its ROC AUC, then the difference of each model's, those trained on its data set."""
    baselines = compared["baselines"]
    rows: list[tuple[str, ...]] = [("the baseline alone", *(format_number(baseline["auc"]) for baseline in baselines))]
    for model in compared["models"]:
        above = (format_difference(baseline["above"].get(model["model"], {})) for baseline in baselines)
        rows.append((f"{model['model']}, minus the baseline", *above))
    return ("ROC AUC", *(f"{BASELINES[baseline['name']]} of {baseline['trained_on']}" for baseline in baselines)), rows


def _mean(name: str, value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return f"undefined: {value['reason']}"
    mean = format_estimate(name, {"value": value["mean"]})
    return mean if value["deviation"] is None else f"{mean} (± {format_estimate(name, {'value': value['deviation']})})"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    value = format_p(p_value)
    return value if p_value <= SIGNIFICANCE else f"{value} (within noise)"
