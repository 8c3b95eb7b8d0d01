"""The comparison of models as tables of texts, as CSV and as LaTeX.

Reads what :func:`detector_core.evaluation.model_comparison.compare_models` returns, and computes nothing itself.
"""

from typing import Any

import pandas as pd

from detector_core.evaluation.baselines import BASELINES
from detector_core.evaluation.latex import Table, to_latex
from detector_core.evaluation.metrics import ERROR_RATES, RANKING_METRICS, short_label
from detector_core.evaluation.model_comparison import COMPARED, MATCHED, MATCHED_LABELS
from detector_core.evaluation.report_tables import bounds_of, source_rows
from detector_core.evaluation.report_text import SOURCE_HEADER, format_estimate, source_cells
from detector_core.labels import FAKE, REAL

LABELS = {
    **{name: short_label(name) for name in COMPARED},
    "auc": RANKING_METRICS["auc"],
    **{name: f"{short_label(name)}, own threshold" for name in ERROR_RATES},
    **MATCHED_LABELS,
}


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
        (_run(row, compared, seen=True), *(format_estimate(name, row[name]) for name in names))
        for row in sorted(compared["rows"], key=lambda row: -(row["auc"]["value"] or 0))
    ]
    return ("run", *(LABELS[name] for name in names)), rows


def source_table(compared: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row of texts per source and run, the runs next to each other; no rows if there is one source."""
    cells = [
        [(cell[0], _run(row, compared), *cell[1:]) for cell in source_cells(row["sources"])]
        for row in compared["rows"]
        if row["sources"]
    ]
    return (SOURCE_HEADER[0], "run", *SOURCE_HEADER[1:]), [
        row for same_source in zip(*cells, strict=True) for row in same_source
    ]


def to_csv(sets: list[dict[str, Any]]) -> bytes:
    """One line per set and run: each metric with its interval as fractions, empty where it is undefined."""
    rows = []
    for compared in sets:
        counts = {"reals": compared["images"][REAL], "fakes": compared["images"][FAKE]}
        for row in compared["rows"]:
            bounds = bounds_of(row, (*COMPARED, *MATCHED))
            rows.append({"set": compared["name"], **{k: row[k] for k in ("run", "model", "seed")}, **counts, **bounds})
        for baseline in compared.get("baselines", []):
            bounds = bounds_of(baseline, ("auc",))
            name = f"baseline: {BASELINES[baseline['name']]} of {baseline['trained_on']}"
            rows.append({"set": compared["name"], "run": name, "model": name, **counts, **bounds})
    return pd.DataFrame(rows).to_csv(index=False).encode()


def comparison_files(sets: list[dict[str, Any]], *more: Table) -> dict[str, bytes]:
    """The tables of a comparison as files by name.

    Args:
        sets: :func:`compare_models` of each set, with ``name``.
        more: further tables for ``comparison.tex``.

    Returns:
        ``comparison.csv``; ``sources.csv``, one line per set, run and source, if a set has several sources; and
        ``comparison.tex``, for each set the runs with intervals and their metrics by source.
    """
    sources = [
        {"set": compared["name"], **{name: row[name] for name in ("run", "model", "seed")}, **source}
        for compared in sets
        for row in compared["rows"]
        if row["sources"]
        for source in source_rows(row["sources"])
    ]
    tables = []
    for compared in sets:
        tables.append(Table(f"{compared['name']}: {describe_winner(compared)}", *run_table(compared)))
        header, rows = source_table(compared)
        if rows:
            tables.append(Table(f"{compared['name']}, by source", header, rows))
    return {
        "comparison.csv": to_csv(sets),
        **({"sources.csv": pd.DataFrame(sources).to_csv(index=False).encode()} if sources else {}),
        "comparison.tex": to_latex(*tables, *more),
    }


def _run(row: dict[str, Any], compared: dict[str, Any], *, seen: bool = False) -> str:
    """The name of a run; ``seen``: with the number of images that it has seen before."""
    several = sum(other["model"] == row["model"] for other in compared["rows"]) > 1
    name = f"{row['model']}, seed {row['seed']}" if several else row["model"]
    return name + (_seen(row["overlap"]) if seen else "")


def _seen(overlap: dict[str, Any]) -> str:
    if overlap["exact"] is None:
        return " (may have seen these images: nothing tells)"
    near = f"{overlap['near']:,} near-duplicate{'s' * (overlap['near'] != 1)}" if overlap["near"] else ""
    counts = [*([f"{overlap['exact']:,} of these images"] if overlap["exact"] else []), *([near] if near else [])]
    return f" (has seen {', '.join(counts)})" if counts else ""
