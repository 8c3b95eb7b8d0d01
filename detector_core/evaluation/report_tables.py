"""The tables of a report as files: CSV with plain values, and LaTeX with the texts that the page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from detector_core.evaluation.baselines import MODEL
from detector_core.evaluation.by_source import SOURCE_METRICS
from detector_core.evaluation.latex import Table, to_latex
from detector_core.evaluation.metrics import METRICS, RANKING_METRICS, ROBUSTNESS_METRICS, short_label
from detector_core.evaluation.report_text import (
    BASELINE_HEADER,
    SOURCE_HEADER,
    baseline_cells,
    format_estimate,
    source_cells,
)

_ESTIMATE = ("value", "low", "high", "count", "of", "reason")
_ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))


def report_tables(report: dict[str, Any]) -> dict[str, bytes]:
    """The figures of a report as files by name, ``NAME.csv`` and ``NAME.tex``.

    Returns:
        ``metrics``, and where the report has them ``sources``, ``baselines`` and ``robustness``. A CSV file has value
        and interval as fractions, empty where they are undefined.
    """
    tables = {"metrics": _metrics(report)}
    if "sources" in report:
        tables["sources"] = source_rows(report["sources"]), SOURCE_HEADER, source_cells(report["sources"])
    if "baselines" in report:
        tables["baselines"] = _baseline_rows(report), BASELINE_HEADER, baseline_cells(report)
    if "robustness" in report:
        tables["robustness"] = _robustness(report["robustness"])
    title = f"{report['model']['run']} on the {report['split']} split of {report['data']['name']}"
    files = {}
    for name, (rows, header, cells) in tables.items():
        files[f"{name}.csv"] = pd.DataFrame(rows).to_csv(index=False).encode()
        files[f"{name}.tex"] = to_latex(Table(f"{title}: {name}", header, cells))
    return files


_Rows = tuple[list[dict[str, Any]], Sequence[str], list[tuple[str, ...]]]


def _metrics(report: dict[str, Any]) -> _Rows:
    figures = report["metrics"] | report["ranking"]
    rows = [{"metric": name, **{key: estimate.get(key) for key in _ESTIMATE}} for name, estimate in figures.items()]
    labels = METRICS | RANKING_METRICS
    return rows, ("metric", "value"), [(labels[name], format_estimate(name, of)) for name, of in figures.items()]


def _baseline_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for baseline in report["baselines"]:
        above = baseline["above"].get(MODEL, {})
        row = {"baseline": baseline["name"], "trained_on": baseline["trained_on"], **bounds_of(baseline, ("auc",))}
        tested = {f"above_{key}".removesuffix("_difference"): above.get(key) for key in ("difference", "low", "high")}
        rows.append({**row, **tested, "p_value": above.get("p_value"), "reason": baseline["auc"].get("reason")})
    return rows


def _robustness(changes: list[dict[str, Any]]) -> _Rows:
    rows = [{"change": row["change"], **bounds_of(row, ROBUSTNESS_METRICS)} for row in changes]
    cells = [(row["change"], *(format_estimate(name, row[name]) for name in ROBUSTNESS_METRICS)) for row in changes]
    return rows, ("images", *map(short_label, ROBUSTNESS_METRICS)), cells


def source_rows(sources: dict[str, Any]) -> list[dict[str, Any]]:
    """One row of plain values per source, from the ``sources`` of a report."""
    return [
        {
            "source": row["source"],
            **row["images"],
            "left_out": row["left_out"],
            **bounds_of(row, SOURCE_METRICS),
        }
        for row in sources["rows"]
    ]


def bounds_of(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Value, ``NAME_low`` and ``NAME_high`` of each metric of a row; None where they are undefined."""
    return {f"{name}{end}": row[name].get(key) for name in names for end, key in _ENDS}
