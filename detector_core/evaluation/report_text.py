"""The report of an evaluation as a text table, and how its figures are written wherever they are shown."""

from collections.abc import Callable
from typing import Any

from detector_core.evaluation import flag_value
from detector_core.evaluation.baselines import BASELINES, MODEL
from detector_core.evaluation.by_source import SOURCE_METRICS
from detector_core.evaluation.calibration import UNCERTAIN
from detector_core.evaluation.metrics import (
    DECIMALS,
    ERROR_RATES,
    METRICS,
    RANKING_METRICS,
    ROBUSTNESS_METRICS,
    short_label,
)
from detector_core.labels import LABELS

SOURCE_HEADER = ("source", "reals", "fakes", *map(short_label, SOURCE_METRICS))
UNCALIBRATED_LABEL = "without calibration, at threshold 0.5"


def format_report(report: dict[str, Any]) -> str:
    """The report as a text table for a terminal: percent with 95% intervals."""
    title = f"{report['model']['run']} on the {report['split']} split of {report['data']['name']}"
    counts, ranks = report["confusion"], report["ranking"]
    lines = [
        title,
        *(f"  !! {warning}" for warning in report["warnings"]),
        *(f"  {label:52}{value}" for label, value in headline(report)),
        f"  {'':20}{'is real':>10}{'is fake':>10}",
        f"  {'called real':20}{counts['reals_passed']:>10,}{counts['fakes_passed']:>10,}",
        f"  {'called fake':20}{counts['reals_flagged']:>10,}{counts['fakes_caught']:>10,}",
        f"  called fake (flagged) if p_fake >= {report['threshold']:.4f}; 95% intervals in brackets:",
        *(f"  {METRICS[name]:52}{format_percent(estimate)}" for name, estimate in report["metrics"].items()),
        *(f"  {label:52}{format_estimate(name, ranks[name])}" for name, label in RANKING_METRICS.items()),
        "  what a flag is worth (precision of the verdict fake):",
        *(f"    {where:50}{right}" for where, right in flag_value.describe(flag_value.of_report(report))),
        f"  {UNCALIBRATED_LABEL}: {format_uncalibrated(report)}",
        *_uncertain_lines(report),
        *_source_lines(report),
        *_baseline_lines(report),
    ]
    if "robustness" in report:
        lines.append(f"  {'changed images':30}" + "".join(f"  {short_label(m)}" for m in ROBUSTNESS_METRICS))
        lines += [_robustness_line(row) for row in report["robustness"]]
    return "\n".join(lines)


def _uncertain_lines(report: dict[str, Any]) -> list[str]:
    summary, calibration = report["with_uncertain"], report["calibration"]
    low, high, error = calibration["real_below"], calibration["fake_above"], calibration["on_these_images"]
    title = f"with the verdict {UNCERTAIN} from p_fake {low:.4f} to {high:.4f}" if low < high else "never uncertain"
    counts = {label: ", ".join(f"{n:,} {v}" for v, n in summary["verdicts"][label].items()) for label in LABELS}
    return [
        f"  {title}:",
        *(f"    {label + 's:':8}{row}" for label, row in counts.items()),
        f"    decided {format_percent(summary['coverage'])}, "
        f"of these correct {format_percent(summary['accuracy_of_decided'])}",
        f"  calibration error (ECE) {error['ece_before']:.4f} -> {error['ece_after']:.4f} "
        f"with temperature {calibration['temperature']:.3f}",
    ]


def _source_lines(report: dict[str, Any]) -> list[str]:
    if "sources" not in report:
        return []
    rows = [SOURCE_HEADER, *source_cells(report["sources"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(SOURCE_HEADER))]
    return ["  by source:"] + [
        "    " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


BASELINE_HEADER = ("baseline", "ROC AUC", "ROC AUC of the model, minus that", "p (DeLong)")


def _baseline_lines(report: dict[str, Any]) -> list[str]:
    if "baselines" not in report:
        return []
    lines = []
    for name, auc, above, p_value in baseline_cells(report):
        tested = f"; the model has {above} more, p {p_value if p_value[0] == '<' else f'= {p_value}'}"
        lines.append(f"    {name:18}{auc}{'' if above == '-' else tested}")
    return ["  baselines, without a network (ROC AUC):", *lines]


def baseline_cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row of :data:`BASELINE_HEADER` per baseline of a report, as texts."""
    rows: list[tuple[str, ...]] = []
    for baseline in report["baselines"]:
        difference = baseline["above"].get(MODEL, {})
        p_value = difference.get("p_value")
        cells = (format_number(baseline["auc"]), format_difference(difference))
        rows.append((BASELINES[baseline["name"]], *cells, "-" if p_value is None else format_p(p_value)))
    return rows


def format_difference(test: dict[str, Any], *, percent: bool = False) -> str:
    """A difference between two models with its interval, ``+0.0120 (-0.0010 to +0.0250)``; ``-`` if there is none."""
    if "low" not in test:
        return "-"
    scale, digits, unit = (100, 2, " points") if percent else (1, 4, "")
    value, low, high = (f"{scale * test[name]:+.{digits}f}" for name in ("difference", "low", "high"))
    return f"{value}{unit} ({low} to {high})"


def format_p(p_value: float) -> str:
    """A p-value with four decimals."""
    return f"{p_value:.4f}" if p_value >= 0.0001 else "< 0.0001"


def source_cells(sources: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row of :data:`SOURCE_HEADER` per source, as texts, and one with the means; ``-`` is undefined."""

    def cell(name: str, estimate: dict[str, Any]) -> str:
        return "-" if estimate["value"] is None else format_estimate(name, estimate)

    rows = []
    for row in sources["rows"]:
        name = row["source"] + (" (left out of training)" if row["left_out"] else "")
        counts = (f"{row['images'][label]:,}" for label in LABELS)
        rows.append((name, *counts, *(cell(metric, row[metric]) for metric in SOURCE_METRICS)))
    means = (cell(metric, sources["mean"][metric]) for metric in SOURCE_METRICS)
    return [*rows, ("mean over sources", "", "", *means)]


def _robustness_line(row: dict[str, Any]) -> str:
    line = f"  {row['change']:30}"
    for metric in ROBUSTNESS_METRICS:
        cell = "-" if row[metric]["value"] is None else format_estimate(metric, row[metric]).partition(" ")[0]
        line += f"  {cell:>{len(short_label(metric))}}"
    return line


def format_uncalibrated(report: dict[str, Any]) -> str:
    """Accuracy and both error rates without calibration, at 0.5, in one line."""
    shown = ("accuracy", *ERROR_RATES)
    return ", ".join(f"{short_label(name)} {format_percent(report['uncalibrated'][name])}" for name in shown)


def headline(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what a report says first: both error rates at the frozen threshold, and the ROC AUC.

    With several sources the worst of them follow, and those that the model was trained without. Verdicts that may be
    uncertain and the model without calibration have other rates, under names of their own.
    """
    lines = [(short_label(name), format_percent(report["metrics"][name])) for name in ERROR_RATES]
    lines.append((RANKING_METRICS["auc"], format_estimate("auc", report["ranking"]["auc"])))
    if "overlap" in report:
        lines.append(("images the model was trained or chosen on", format_overlap(report["overlap"])))
    if "sources" not in report:
        return lines
    sources = {row["source"]: row for row in report["sources"]["rows"]}
    for rate, name in report["sources"]["worst"].items():
        lines.append((f"{short_label(rate)}, worst source", f"{name}: {format_percent(sources[name][rate])}"))
    for name, row in sources.items():
        if row["left_out"]:
            rates = [f"{short_label(n)} {format_percent(row[n])}" for n in ERROR_RATES if row[n]["value"] is not None]
            text = "; ".join([*rates, f"ROC AUC {format_estimate('auc', row['auc'])}"])
            lines.append((f"{name}, left out of training", text))
    return lines


def format_overlap(overlap: dict[str, Any]) -> str:
    """``0 of 400, and 1 near-duplicate``, or the reason why it is not known."""
    if overlap["exact"] is None:
        return f"not known: {overlap['reason']}"
    near = overlap["near"]
    duplicates = f"near-duplicates not known: {overlap['reason']}" if near is None else f"{near:,} near-duplicate"
    return f"{overlap['exact']:,} of {overlap['images']:,}, and {duplicates}" + (
        "s" if near is not None and near != 1 else ""
    )


def format_percent(estimate: dict[str, Any]) -> str:
    """``98.21% (97.10-98.90)``, or the reason why it or its interval is undefined."""
    return _format(estimate, lambda value: f"{100 * value:.2f}", "%")


def format_number(estimate: dict[str, Any]) -> str:
    """``0.9821 (0.9710-0.9890)``, or the reason why it or its interval is undefined."""
    return _format(estimate, lambda value: f"{value:.4f}", "")


def format_estimate(name: str, estimate: dict[str, Any]) -> str:
    """A metric as a decimal number if it is one of :data:`DECIMALS`, else in percent."""
    return format_number(estimate) if name in DECIMALS else format_percent(estimate)


def _format(estimate: dict[str, Any], number: Callable[[float], str], unit: str) -> str:
    reason = estimate.get("reason")
    if estimate["value"] is None:
        return f"undefined: {reason}"
    value = number(estimate["value"]) + unit
    if "low" in estimate:
        return f"{value} ({number(estimate['low'])}-{number(estimate['high'])})"
    return f"{value} ({reason})" if reason else value
