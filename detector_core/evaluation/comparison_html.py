"""The comparison with the paper as one HTML page that opens offline, as text, and as learning curves.

Reads what :func:`detector_core.evaluation.comparison.compare` returns, and computes nothing itself.
"""

import math
from typing import Any

from detector_core import plotting
from detector_core.evaluation import flag_value
from detector_core.evaluation.comparison import (
    PAPER,
    EvaluatedRun,
    misprints,
    paper_confusion,
    table_5,
)
from detector_core.evaluation.html_page import escape, image, page, table, warnings
from detector_core.evaluation.latex import Table
from detector_core.evaluation.metrics import METRICS, Confusion, short_label
from detector_core.evaluation.model_comparison_html import sections
from detector_core.evaluation.model_comparison_tables import describe_winner
from detector_core.evaluation.significance import SIGNIFICANCE

COLUMNS = 3
DPI = 100
_NOT_MATCHED = (
    "In Table II cut-out also changes the learning rate and, of Resnet-68, the number of epochs: a difference between "
    "a variant and its cut-out form cannot be put down to cut-out (--matched trains both alike)."
)
_MATCHED = (
    "Each cut-out variant has the learning rate and the epochs of the variant without it: they differ in cut-out."
)
_COUNTS = ("reals_passed", "fakes_passed", "reals_flagged", "fakes_caught")


def draw_learning_curves(runs: list[EvaluatedRun]) -> dict[str, bytes]:
    """PNG and SVG files by name: loss and accuracy of each run over its epochs, as in the paper's Figs. 5-7."""
    rows = math.ceil(len(runs) / COLUMNS)
    figure = plotting.new_figure(5 * COLUMNS, 3.4 * rows)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis, run in zip(axes, runs, strict=False):
        title = f"{run.variant}, seed {run.seed}"
        plotting.draw_learning_curves(axis, run.history, title=title, kept_epoch=run.training["best"]["epoch"])
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    labels = [label for _, label in plotting.LEARNING_CURVES.values()]
    lines = axes[0].get_lines()[: len(labels)]
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels))
    return plotting.files("curves", figure, DPI)


def render_page(comparison: dict[str, Any], runs: list[EvaluatedRun], files: dict[str, bytes]) -> str:
    """The whole comparison as one HTML page.

    Args:
        files: images by name; the PNG files are embedded in the page.
    """
    name = runs[0].report["data"]["name"]
    title = f"The paper's comparison on {name}"
    # These include what the audit of the data set warned of, so the section below does not repeat it.
    report_warnings = sorted({text for run in runs for text in run.report["warnings"]})
    parts = [
        f"<h1>{escape(title)}</h1>",
        warnings([*_differences(comparison), *report_warnings]),
        *(["<h2>Our runs</h2>", *sections({**comparison["models"], "warnings": []})] if "models" in comparison else []),
        "<h2>By the paper's rule</h2>",
        f"<p>{escape(_winner(comparison))}. Ties go to the higher accuracy. Each threshold was chosen on the "
        f"validation split and weighs both errors in its own way, so fewer fakes passed may only mean more reals "
        f"flagged: by this rule a model that calls everything fake would win.</p>",
        "<h2>Confusion matrices (Tables III and IV)</h2>",
        _table(_confusions(comparison["rows"])),
        "<h2>Metrics in percent (Table V)</h2>",
        "<p>The positive class is real. The paper's rows are recomputed from its confusion matrices; * marks a value "
        "that its Table V prints differently, as explained below.</p>",
        _table(_metrics(comparison["means"])),
        _misprints(comparison["means"]),
        "<h2>What a flag would be worth</h2>",
        "<p>Of 100 images called fake, how many are fake, depends on the share of fakes where a model is used: about 1 "
        "in 2,000 among profile pictures, by a published estimate. Where fakes are rare, the reals flagged decide, "
        "which the paper's rule leaves out: its winner is then the wrong model.</p>",
        _table(_flag_values(comparison["rows"])),
        "<h2>Do two variants differ at their own thresholds?</h2>",
        f"<p>McNemar's exact test on the same images, not adjusted for the number of pairs: over all images, and over "
        f"the fakes alone, which shows whether one of the two lets fewer fakes pass. A difference with p above "
        f"{SIGNIFICANCE:g} may be chance.</p>",
        _table(_pairs(comparison["mcnemar"])),
        "<h2>Settings</h2>",
        "<p>In brackets the variant's default, where a run used another value: the paper's, or this project's where "
        f"the paper gives none. {_MATCHED if comparison.get('matched') else _NOT_MATCHED}</p>",
        _table(_settings(comparison["settings"])),
        "<h2>Cost</h2>",
        _table(_cost(comparison["rows"])),
        "<h2>Learning curves</h2>",
        *(image(name, png, width="100%") for name, png in files.items() if name.endswith(".png")),
    ]
    return page(title, parts)


def latex_tables(comparison: dict[str, Any]) -> list[Table]:
    """Tables III to V next to the paper's, McNemar's tests at the variants' own thresholds, and cost."""
    tables = {
        "Confusion matrices (Tables III and IV)": _confusions(comparison["rows"]),
        "Metrics in percent (Table V); * marks a misprint of the paper": _metrics(comparison["means"]),
        "McNemar's exact test, not adjusted": _pairs(comparison["mcnemar"]),
        "Cost": _cost(comparison["rows"]),
    }
    return [
        Table(title, tuple(rows[0]), [tuple(row.values()) for row in rows]) for title, rows in tables.items() if rows
    ]


def format_comparison(comparison: dict[str, Any]) -> str:
    """Table V and the winner as text for a terminal."""
    metrics = table_5(comparison["means"]).rename(columns={name: short_label(name) for name in METRICS})
    lines = [
        "Table V in percent (the positive class is real; the paper's rows are recomputed from its confusion matrices)",
        metrics.to_string(index=False, float_format="{:.2f}".format, na_rep="-"),
        *([describe_winner(comparison["models"])] if "models" in comparison else []),
        f"{_winner(comparison)}: the paper's rule, each variant at its own threshold",
        *_differences(comparison),
    ]
    return "\n".join(lines)


def _winner(comparison: dict[str, Any]) -> str:
    variant, close = comparison["winner"]["variant"], comparison["winner"]["within_noise"]
    return f"Fewest fakes passed: {variant}" + (f" (within noise of {', '.join(close)})" if close else "")


def _differences(comparison: dict[str, Any]) -> list[str]:
    """A sentence about the settings that are not the paper's; none if all are."""
    names = comparison["differences"]
    return [f"Not trained as in the paper: different {', '.join(names)}"] if names else []


def _settings(runs: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "variant": _run(run),
            **{
                name: f"{value['used']}" + (f" ({value['default']})" if value["used"] != value["default"] else "")
                for name, value in run.items()
                if name not in ("variant", "seed")
            },
        }
        for run in runs
    ]


def _confusions(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    cells = []
    for row in rows:
        cells.append({"variant": _run(row), "source": "ours", **_counts(row)})
        if row["variant"] in PAPER["confusions"] and row["seed"] == rows[0]["seed"]:
            counts = vars(paper_confusion(row["variant"]))
            cells.append({"variant": row["variant"], "source": "paper", **_counts(counts)})
    return cells


def _flag_values(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """How many of 100 flags are right, ours and the paper's."""
    cells = []
    for row in rows:
        sources = {"ours": Confusion(**{name: row[name] for name in _COUNTS})}
        if row["variant"] in PAPER["confusions"] and row["seed"] == rows[0]["seed"]:
            sources["paper"] = paper_confusion(row["variant"])
        for source, confusion in sources.items():
            name = _run(row) if source == "ours" else row["variant"]
            entries = flag_value.of_confusion(confusion)
            worth = {f"1 in {entry['one_in']:,}": flag_value.short(entry["right"]) for entry in entries}
            cells.append({"variant": name, "source": source, **worth})
    return cells


def _counts(counts: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): f"{counts[name]:,}" for name in _COUNTS}


def _metrics(means: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Table V; * marks misprints, and brackets hold the lowest and the highest value over several seeds."""
    misprinted = {(row["variant"], row["metric"]) for row in PAPER["misprints"]}
    of_seeds = {mean["variant"]: mean for mean in means if len(mean["seeds"]) > 1}
    cells = []
    for row in table_5(means).to_dict("records"):
        variant, ours = row["variant"], row["source"] == "ours"
        values = {"variant": variant, "source": row["source"]}
        for name in METRICS:
            low_high = of_seeds.get(variant, {}).get(f"{name}_spread") if ours else None
            spread = f" ({100 * low_high[0]:.2f}-{100 * low_high[1]:.2f})" if low_high else ""
            star = "*" if not ours and (variant, name) in misprinted else ""
            defined = not math.isnan(row[name])
            values[short_label(name)] = f"{row[name]:.3f}{star}{spread}" if defined else "not defined"
        cells.append(values)
    return cells


def _misprints(means: list[dict[str, Any]]) -> str:
    items = [f"{mean['variant']}: {line}" for mean in means for line in misprints(mean["variant"])]
    items += [f"the text says that {row['says']}: {row['why']}" for row in PAPER["misprints_in_the_text"]]
    items += [f"{' and '.join(row['variants'])} are within noise: {row['why']}" for row in PAPER["within_noise"]]
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _pairs(pairs: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "variants": " / ".join(pair["variants"]),
            "only the first correct": f"{pair['only_first_correct']:,}",
            "only the second correct": f"{pair['only_second_correct']:,}",
            "p, all images": _p_value(pair["p_value"]),
            "p, fakes alone": _p_value(pair["fakes"]["p_value"]),
        }
        for pair in pairs
    ]


def _p_value(p_value: float) -> str:
    value = f"{p_value:.4f}" if p_value >= 0.0001 else "< 0.0001"
    return value if p_value <= SIGNIFICANCE else f"{value} within noise"


def _cost(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "variant": _run(row),
            "epochs": f"{row['epochs']}",
            "kept epoch": f"{row['best_epoch']}",
            "training, s": f"{row['seconds']:,.0f}",
            "images/s": f"{row['images_per_s']:,.1f}",
            "peak memory per worker, MiB": f"{row['peak_memory_bytes'] / 2**20:,.0f}",
        }
        for row in rows
    ]


def _run(row: dict[str, Any]) -> str:
    return f"{row['variant']}, seed {row['seed']}"


def _table(rows: list[dict[str, str]]) -> str:
    return table(tuple(rows[0]), [tuple(row.values()) for row in rows]) if rows else ""
