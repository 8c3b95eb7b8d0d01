"""The comparison for people: one HTML page that needs no network, and the learning curves of all variants.

Reads what :func:`detector_core.evaluation.comparison.compare` returns and computes nothing anew.
"""

import html
import io
import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detector_core.evaluation.comparison import NOISE, PAPER, EvaluatedRun, misprints, paper_confusion, table_5
from detector_core.evaluation.metrics import METRICS, short_label
from detector_core.evaluation.report_html import STYLE, image

COLUMNS = 3
_CURVES = {
    "train_loss": ("tab:blue", "training loss"),
    "val_loss": ("tab:green", "validation loss"),
    "train_accuracy": ("tab:orange", "training accuracy"),
    "val_accuracy": ("tab:red", "validation accuracy"),
}


def draw_learning_curves(runs: list[EvaluatedRun]) -> bytes:
    """A PNG: loss and accuracy of each run over its epochs, as the paper's Figs. 5-7."""
    rows = math.ceil(len(runs) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis, run in zip(axes, runs, strict=False):
        epochs = [row["epoch"] for row in run.history]
        for name, (colour, _) in _CURVES.items():
            axis.plot(epochs, [row[name] for row in run.history], color=colour, marker="o", markersize=3)
        axis.axvline(run.training["best"]["epoch"], color="grey", linestyle=":")
        axis.set(title=f"{run.variant}, seed {run.seed}", xlabel="epoch", xlim=(0.5, epochs[-1] + 0.5), ylim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    figure.legend([label for _, label in _CURVES.values()], loc="outside lower center", ncols=len(_CURVES))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def render_page(comparison: dict[str, Any], runs: list[EvaluatedRun], images: dict[str, bytes]) -> str:
    """The whole comparison as one HTML page."""
    data = runs[0].report["data"]
    warnings = sorted({text for run in runs for text in run.report["warnings"]})
    won = comparison["winner"]
    parts = [
        f"<h1>The comparison of the paper, on {_escape(data['name'])}</h1>",
        *(f'<p class="warning">{_escape(text)}</p>' for text in [*_otherwise(comparison["otherwise"]), *warnings]),
        f"<p>The fewest fakes passed: <b>{_escape(won['variant'])}</b>{_close(won['within_noise'])}. "
        f"Ties go to the higher accuracy. Each threshold was chosen on the validation split.</p>",
        "<h2>Tables III and IV: what each variant called what</h2>",
        _frame(_confusions(comparison["rows"])),
        "<h2>Table V, percent</h2>",
        "<p>Positive means real. The paper's rows are recomputed from its matrices; * marks a figure that its Table V "
        "prints otherwise, explained below.</p>",
        _frame(_marked(comparison["means"])),
        _misprinted(comparison["means"]),
        "<h2>Do two variants differ?</h2>",
        f"<p>McNemar's exact test on the same images: over all, and over the fakes alone, where it says whether one "
        f"truly passes fewer. Above {NOISE:g} the difference may be chance.</p>",
        _frame(_pairs(comparison["mcnemar"])),
        "<h2>Settings</h2>",
        "<p>In brackets the variant's row, where another was taken: the paper's, this project's where it has none.</p>",
        _frame(_settings(comparison["settings"])),
        "<h2>Cost</h2>",
        _frame(_cost(comparison["rows"])),
        "<h2>Learning curves</h2>",
        *(image(name, png, width="100%") for name, png in images.items()),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The comparison on '
        f'{_escape(data["name"])}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def format_comparison(comparison: dict[str, Any]) -> str:
    """Table V and the winner for a terminal."""
    won = comparison["winner"]
    shown = table_5(comparison["means"]).rename(columns={name: short_label(name) for name in METRICS})
    return (
        f"Table V, percent (positive = real; the paper's rows recomputed from its matrices)\n"
        f"{shown.to_string(index=False, float_format='{:.2f}'.format, na_rep='-')}\n"
        f"fewest fakes passed: {won['variant']}{_close(won['within_noise'])}"
        + "".join(f"\n{line}" for line in _otherwise(comparison["otherwise"]))
    )


def _otherwise(names: list[str]) -> list[str]:
    """A sentence about the settings that are not the paper's; none if all are."""
    return [f"Not trained as in the paper: other {', '.join(names)}"] if names else []


def _settings(runs: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "variant": f"{run['variant']}, seed {run['seed']}",
                **{
                    name: f"{value['ours']}" + (f" ({value['row']})" if value["ours"] != value["row"] else "")
                    for name, value in run.items()
                    if name not in ("variant", "seed")
                },
            }
            for run in runs
        ]
    )


def _close(within_noise: list[str]) -> str:
    return f" (its lead is within noise of {', '.join(within_noise)})" if within_noise else ""


def _confusions(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = ("reals_passed", "fakes_passed", "reals_flagged", "fakes_caught")
    found = []
    for row in rows:
        found.append({"variant": f"{row['variant']}, seed {row['seed']}", "source": "ours", **_pick(row, names)})
        if row["variant"] in PAPER["confusions"] and row["seed"] == rows[0]["seed"]:
            counts = vars(paper_confusion(row["variant"]))
            found.append({"variant": row["variant"], "source": "paper", **_pick(counts, names)})
    return pd.DataFrame(found)


def _pick(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name.replace("_", " "): f"{values[name]:,}" for name in names}


def _marked(means: list[dict[str, Any]]) -> pd.DataFrame:
    table = table_5(means)
    wrong = {(row["variant"], row["metric"]) for row in PAPER["misprints"]}
    shown = table[["variant", "source"]].astype(str)
    spreads = {mean["variant"]: mean for mean in means if len(mean["seeds"]) > 1}
    for name in METRICS:
        cells = []
        for variant, source, value in zip(table["variant"], table["source"], table[name], strict=True):
            star = "*" if source == "paper" and (variant, name) in wrong else ""
            low_high = spreads.get(variant, {}).get(f"{name}_spread") if source == "ours" else None
            spread = f" ({100 * low_high[0]:.2f}-{100 * low_high[1]:.2f})" if low_high else ""
            cells.append("not defined" if math.isnan(value) else f"{value:.3f}{star}{spread}")
        shown[short_label(name)] = cells
    return shown


def _misprinted(means: list[dict[str, Any]]) -> str:
    items = [f"{mean['variant']}: {line}" for mean in means for line in misprints(mean["variant"])]
    items += [f"the text: {row['says']}: {row['why']}" for row in PAPER["misprints_in_the_text"]]
    items += [f"{' and '.join(row['variants'])} are within noise: {row['why']}" for row in PAPER["within_noise"]]
    return "<ul>" + "".join(f"<li>{_escape(item)}</li>" for item in items) + "</ul>"


def _pairs(pairs: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "variants": " / ".join(pair["variants"]),
                "only the first right": f"{pair['only_first_right']:,}",
                "only the second right": f"{pair['only_second_right']:,}",
                "p, all images": _noise(pair["p_value"]),
                "p, fakes alone": _noise(pair["fakes"]["p_value"]),
            }
            for pair in pairs
        ]
    )


def _noise(p_value: float) -> str:
    return f"{p_value:.4f}{'' if p_value <= NOISE else ' within noise'}"


def _cost(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "variant": f"{row['variant']}, seed {row['seed']}",
                "epochs": row["epochs"],
                "kept epoch": row["best_epoch"],
                "training, s": f"{row['seconds']:,.0f}",
                "images/s": f"{row['images_per_s']:,.1f}",
                "peak memory of a worker, MiB": f"{row['peak_memory_bytes'] / 2**20:,.0f}",
            }
            for row in rows
        ]
    )


def _frame(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0)


def _escape(text: str) -> str:
    return html.escape(text)
