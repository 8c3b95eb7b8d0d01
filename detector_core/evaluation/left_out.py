"""Leave-one-generator-out: how well models recognize the images of a source that their training did not have.

The model trained with all sources and the one trained without a source are compared on the same images: those of the
source and, if it has one class only, all images of the other class. Results are read from their reports; only the
paired test is computed here.
"""

import statistics
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from detector_core import labels, plotting
from detector_core.evaluation import latex
from detector_core.evaluation.html_page import escape, image, interval_below, page, table, warnings
from detector_core.evaluation.intervals import compare_aucs
from detector_core.evaluation.report_text import format_difference, format_estimate, format_p
from detector_core.evaluation.significance import SIGNIFICANCE, holm

FIGURES = ("auc", "fakes_passed_rate", "reals_flagged_rate")
"""The metrics of each source, of the model trained without it and of the model trained with all."""
_HEADER = (
    *("source", "ROC AUC, left out", "ROC AUC, trained with it", "difference", "p (DeLong, Holm)"),
    *("fakes passed, left out", "fakes passed, trained with it", "reals flagged by the model without it"),
)


class Evaluated(NamedTuple):
    """A model's report (``report.json``) on the test split, and its scores: columns path, label, source, logit."""

    report: dict[str, Any]
    scores: pd.DataFrame


def compare_left_out(complete: Evaluated, without: dict[str, Evaluated]) -> dict[str, Any]:
    """Compares the models that were trained without a source with the one that was trained with all.

    Args:
        complete: of the model trained with all sources.
        without: of the model trained without a source, by source; on the same images.

    Returns:
        ``rows``, one per source, that with the lowest ROC AUC first: ``source``, ``images`` of each class, ``left_out``
        and ``trained`` (each of :data:`FIGURES` on the source; of one class, ``auc`` is against all of the other),
        ``difference`` in ROC AUC (left out minus trained, with interval, ``p_value`` and ``p_holm``), and
        ``reals_flagged_rate`` on all reals by the model without it. ``mean``: of both over the sources. ``worst``: the
        source with the lowest ROC AUC when left out; None if no ROC AUC is defined.
    """
    rows = [_row(source, complete, evaluated) for source, evaluated in without.items()]
    for row, p_holm in zip(rows, holm([row["difference"]["p_value"] for row in rows]), strict=True):
        row["difference"]["p_holm"] = p_holm
    rows.sort(key=lambda row: (row["left_out"]["auc"]["value"] is None, row["left_out"]["auc"]["value"]))
    mean = {which: {name: _mean(rows, which, name) for name in FIGURES} for which in ("left_out", "trained")}
    defined = [row["source"] for row in rows if row["left_out"]["auc"]["value"] is not None]
    return {"rows": rows, "mean": mean, "worst": defined[0] if defined else None}


def _row(source: str, complete: Evaluated, without: Evaluated) -> dict[str, Any]:
    figures = {
        which: next(row for row in evaluated.report["sources"]["rows"] if row["source"] == source)
        for which, evaluated in (("left_out", without), ("trained", complete))
    }
    return {
        "source": source,
        "images": figures["left_out"]["images"],
        **{which: {name: row[name] for name in FIGURES} for which, row in figures.items()},
        "difference": _difference(source, complete.scores, without.scores),
        "reals_flagged_rate": without.report["metrics"]["reals_flagged_rate"],
    }


def _difference(source: str, complete: pd.DataFrame, without: pd.DataFrame) -> dict[str, Any]:
    """The difference in ROC AUC on the images of a source, tested; the reason if one class has no images."""
    without = without.set_index("path")
    complete = complete.set_index("path").loc[without.index]
    is_fake, own = labels.is_fake(without["label"]), (without["source"] == source).to_numpy()
    of = own if len(set(is_fake[own])) == 2 else own | (is_fake != is_fake[own][0])
    if len(set(is_fake[of])) < 2:
        return {"p_value": None, "reason": "the test split has one class only"}
    first, second = (scores["logit"].to_numpy(dtype=np.float64)[of] for scores in (without, complete))
    return compare_aucs(is_fake[of], first, second).to_dict()


def _mean(rows: list[dict[str, Any]], which: str, name: str) -> float | None:
    values = [row[which][name]["value"] for row in rows if row[which][name]["value"] is not None]
    return statistics.mean(values) if values else None


def describe_left_out(result: dict[str, Any]) -> str:
    """The result in one sentence."""
    if result["worst"] is None:
        return "No ROC AUC is defined: the test split has one class only."
    mean, worst = result["mean"], result["rows"][0]
    return (
        f"Mean ROC AUC on a source that training did not have: {mean['left_out']['auc']:.4f} (with it in training "
        f"{mean['trained']['auc']:.4f}); the worst is {worst['source']} with {worst['left_out']['auc']['value']:.4f}."
    )


def left_out_cells(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row of texts per source."""
    cells = []
    for row in result["rows"]:
        p_holm = row["difference"]["p_holm"]
        cells.append(
            (
                row["source"],
                *(_cell("auc", row[which]) for which in ("left_out", "trained")),
                format_difference(row["difference"]),
                "-" if p_holm is None else format_p(p_holm),
                *(_cell("fakes_passed_rate", row[which]) for which in ("left_out", "trained")),
                format_estimate("reals_flagged_rate", row["reals_flagged_rate"]),
            )
        )
    return cells


def _cell(name: str, figures: dict[str, Any]) -> str:
    return "-" if figures[name]["value"] is None else format_estimate(name, figures[name])


def format_left_out(result: dict[str, Any]) -> str:
    """The table and the sentence, for a terminal."""
    table_of = pd.DataFrame(left_out_cells(result), columns=list(_HEADER))
    return f"{table_of.to_string(index=False)}\n  {describe_left_out(result)}"


def to_csv(result: dict[str, Any]) -> bytes:
    """One line per source: each figure with its interval as fractions, empty where it is undefined."""
    lines = []
    for row in result["rows"]:
        line = {"source": row["source"], **{f"{label}s": count for label, count in row["images"].items()}}
        for which in ("left_out", "trained"):
            for name in FIGURES:
                for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                    line[f"{name}_{which}{suffix}"] = row[which][name].get(key)
        difference = row["difference"]
        line |= {f"auc_{key}": difference.get(key) for key in ("difference", "p_value", "p_holm")}
        lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False).encode()


def to_latex(result: dict[str, Any], title: str) -> bytes:
    """The table of the page for LaTeX."""
    return latex.to_latex(latex.Table(f"{title}: {describe_left_out(result)}", _HEADER, left_out_cells(result)))


def draw_left_out(result: dict[str, Any]) -> dict[str, bytes]:
    """PNG and SVG files by name: ROC AUC of each source with its interval, left out and trained with it.

    None if no ROC AUC is defined.
    """
    rows = [row for row in result["rows"] if row["left_out"]["auc"]["value"] is not None]
    if not rows:
        return {}
    figure = plotting.new_figure(6, 1.6 + 0.5 * len(rows))
    axes = figure.add_subplot()
    for which, label, color, shift in (
        ("trained", "trained with it", "tab:gray", 0.12),
        ("left_out", "left out of training", "tab:red", -0.12),
    ):
        drawn = [(place + shift, row[which]["auc"]) for place, row in enumerate(rows)]
        for place, auc in drawn:
            axes.plot([auc.get("low", auc["value"]), auc.get("high", auc["value"])], [place, place], color=color)
        axes.plot([auc["value"] for _, auc in drawn], [place for place, _ in drawn], "o", color=color, label=label)
    axes.axvline(0.5, color="gray", linestyle=":", label="chance")
    axes.set_yticks(range(len(rows)), [row["source"] for row in rows])
    axes.set(
        title="A source that training did not have", xlabel="ROC AUC, with 95% intervals", ylim=(len(rows) - 0.5, -0.5)
    )
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return plotting.files("generators", figure)


def render_left_out(result: dict[str, Any], title: str, notes: list[str], plots: dict[str, bytes]) -> str:
    """The page, which opens offline.

    Args:
        notes: what a reader must know first.
        plots: the files of :func:`draw_left_out`.
    """
    text = (
        "Each row is a model trained and chosen without a source, next to the model trained with all, on the same test "
        "images: those of the source and, if it is of one class, all of the other class. 95% intervals in brackets: "
        "DeLong for ROC AUC, Wilson for rates at the model's own threshold. The p-values are of DeLong's paired test, "
        f"adjusted for the number of sources (Holm); above {SIGNIFICANCE:g} a difference may be chance. Each model has "
        "one seed: another training would give other figures."
    )
    parts = [
        *(f"<h1>{escape(title)}</h1>", warnings(notes), f"<p><b>{escape(describe_left_out(result))}</b></p>"),
        *(image("ROC AUC by source", png, "40rem") for name, png in plots.items() if name.endswith(".png")),
        f"<p>{text}</p>",
        table(_HEADER, map(interval_below, left_out_cells(result))),
    ]
    return page(title, parts)
