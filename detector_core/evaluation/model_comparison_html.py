"""The comparison of models as tables: on an HTML page that opens offline, for a terminal, and as CSV.

Reads what :func:`detector_core.evaluation.model_comparison.compare_models` returns, and computes nothing itself.
"""

from typing import Any

import pandas as pd

from detector_core.evaluation.baselines import BASELINES
from detector_core.evaluation.html_page import escape, interval_below, page, table, warnings
from detector_core.evaluation.metrics import ERROR_RATES, RANKING_METRICS, short_label
from detector_core.evaluation.model_comparison import COMPARED, MATCHED, MATCHED_LABELS
from detector_core.evaluation.report_text import format_difference, format_estimate, format_number, format_p
from detector_core.evaluation.significance import SIGNIFICANCE
from detector_core.labels import FAKE, REAL

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}
_LABELS = {
    **{name: short_label(name) for name in COMPARED},
    "auc": RANKING_METRICS["auc"],
    **{name: f"{short_label(name)}, own threshold" for name in ERROR_RATES},
    **MATCHED_LABELS,
}


def render_page(sets: list[dict[str, Any]], title: str, notes: list[str]) -> str:
    """A page with one section per set of images.

    Args:
        sets: :func:`compare_models` of each set, with ``name`` and ``reals_flagged``, the matched share.
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
    """The HTML of the comparison on one set: verdict, runs, seeds and pairs."""
    images = compared["images"]
    parts = [
        f"<p><b>{escape(describe_winner(compared))}.</b> {images[REAL]:,} real and {images[FAKE]:,} fake images.</p>",
        f"<p>95% confidence intervals in brackets: DeLong for ROC AUC, bootstrap for average precision and EER, Wilson "
        f"for proportions. Rates at a model's own threshold weigh both errors as the model does, so they cannot be "
        f"compared; matched rates can: every model flags at most {compared['reals_flagged']:.1%} of the reals of its "
        f"validation split.</p>",
        _wide_table(*run_table(compared)),
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


def describe_winner(compared: dict[str, Any]) -> str:
    """Who has won, or why nobody has, in one sentence without a full stop."""
    winner = compared["winner"]
    excluded = "; ".join(f"{name} {reason}" for name, reason in winner["excluded"].items())
    text = f"Winner by ROC AUC: {winner['model']}" if winner["model"] else f"No winner: {winner['reason']}"
    return text + (f" (excluded: {excluded})" if excluded and winner["leader"] else "")


def run_table(compared: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row of texts per run."""
    names = (*COMPARED, *MATCHED)
    rows = [
        (_run(row, compared), *(_cell(name, row[name]) for name in names))
        for row in sorted(compared["rows"], key=lambda row: -(row["auc"]["value"] or 0))
    ]
    return ("run", *(_LABELS[name] for name in names)), rows


def to_csv(sets: list[dict[str, Any]]) -> bytes:
    """One line per set and run: each metric with its interval as fractions, empty where it is undefined."""
    rows = []
    for compared in sets:
        counts = {"reals": compared["images"][REAL], "fakes": compared["images"][FAKE]}
        for row in compared["rows"]:
            values = {name: row[name] for name in (*COMPARED, *MATCHED)}
            bounds = {
                f"{name}{suffix}": value.get(key)
                for name, value in values.items()
                for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            rows.append({"set": compared["name"], **{k: row[k] for k in ("run", "model", "seed")}, **counts, **bounds})
        for baseline in compared.get("baselines", []):
            value = baseline["auc"]
            bounds = {"auc": value["value"], "auc_low": value.get("low"), "auc_high": value.get("high")}
            name = f"baseline: {BASELINES[baseline['name']]} of {baseline['trained_on']}"
            rows.append({"set": compared["name"], "run": name, "model": name, **counts, **bounds})
    return pd.DataFrame(rows).to_csv(index=False).encode()


def to_latex(sets: list[dict[str, Any]]) -> bytes:
    """One table per set for LaTeX with booktabs: the runs with intervals, the highest ROC AUC first."""
    tables = []
    for compared in sets:
        header, rows = run_table(compared)
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in (header, *rows)]
        tables += [
            f"% {compared['name']}: {describe_winner(compared)}".replace("\n", " "),
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return "\n".join([r"% needs \usepackage{booktabs}", *tables, ""]).encode()


def _latex(text: str) -> str:
    """A text with the characters that LaTeX reads as commands escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def format_sets(sets: list[dict[str, Any]]) -> str:
    """The runs of every set and the verdicts, for a terminal."""
    lines = []
    for compared in sets:
        images = compared["images"]
        lines.append(f"{compared['name']}: {images[REAL]:,} real and {images[FAKE]:,} fake images")
        header, rows = run_table(compared)
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
    return ("model", *(_LABELS[name] for name in names)), rows


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


def _run(row: dict[str, Any], compared: dict[str, Any]) -> str:
    """The name of a run, with the number of images that it has seen before."""
    overlap = row["overlap"]
    near = f"{overlap['near']:,} near-duplicate{'s' * (overlap['near'] != 1)}" if overlap["near"] else ""
    counts = [*([f"{overlap['exact']:,} of these images"] if overlap["exact"] else []), *([near] if near else [])]
    seen = f" (has seen {', '.join(counts)})" if counts else ""
    seen = " (may have seen these images: nothing tells)" if overlap["exact"] is None else seen
    several = sum(other["model"] == row["model"] for other in compared["rows"]) > 1
    return (f"{row['model']}, seed {row['seed']}" if several else row["model"]) + seen


def _cell(name: str, estimate: dict[str, Any]) -> str:
    return format_estimate(name, estimate)


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
