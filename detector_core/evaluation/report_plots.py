"""The plots of the report of an evaluation, as PNG and SVG files."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from scipy.stats import norm

from detector_core import plotting
from detector_core.labels import FAKE, LABELS, REAL

COLORS = {REAL: "tab:blue", FAKE: "tab:red"}
DPI = 110
_DET_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def draw_plots(report: dict[str, Any]) -> dict[str, bytes]:
    """PNG and SVG files by name; the ROC and DET curves only if both classes have images."""
    skipped = () if report["det_curve"]["reals_flagged_rate"] else ("roc", "roc_log", "det")
    files: dict[str, bytes] = {}
    for name, draw in _PLOTS.items():
        if name not in skipped:
            figure = plotting.new_figure(5, 4.2)
            axes = figure.add_subplot()
            draw(axes, report)
            axes.grid(alpha=0.3)
            files |= plotting.files(name, figure, DPI)
    return files


def _draw_roc(axes: Axes, report: dict[str, Any]) -> None:
    caught = [1 - passed for passed in report["det_curve"]["fakes_passed_rate"]]
    axes.plot(report["det_curve"]["reals_flagged_rate"], caught, color="black")
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    _mark_threshold(axes, *_operating_point(report))
    title = f"ROC curve (positive: fake), AUC {report['ranking']['auc']['value']:.4f}"
    axes.set(title=title, xlabel="reals flagged (FPR)", ylabel="fakes caught (TPR)")


def _draw_roc_log(axes: Axes, report: dict[str, Any]) -> None:
    """The ROC curve where few reals are flagged, down to half of one image: there a detector is used."""
    lowest = 0.5 / max(report["images"][REAL], 1)
    flagged = [max(rate, lowest) for rate in report["det_curve"]["reals_flagged_rate"]]
    caught = [1 - passed for passed in report["det_curve"]["fakes_passed_rate"]]
    axes.plot(flagged, caught, color="black")
    chance = [lowest * (1 / lowest) ** (step / 100) for step in range(101)]
    axes.plot(chance, chance, color="gray", linestyle=":")
    x, y = _operating_point(report)
    _mark_threshold(axes, max(x, lowest), y)
    axes.set(
        title="ROC curve, few reals flagged",
        xlabel="reals flagged (FPR), logarithmic; leftmost: none",
        ylabel="fakes caught (TPR)",
        xscale="log",
        xlim=(lowest, 1),
    )


def _operating_point(report: dict[str, Any]) -> tuple[float, float]:
    """The fraction of reals flagged and of fakes caught at the frozen threshold."""
    metrics = report["metrics"]
    return metrics["reals_flagged_rate"]["value"], metrics["specificity"]["value"]


def _mark_threshold(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], marker="o", color="tab:red", linestyle="none", label="the threshold")
    axes.legend()


def _draw_det(axes: Axes, report: dict[str, Any]) -> None:
    flagged, passed = report["det_curve"]["reals_flagged_rate"], report["det_curve"]["fakes_passed_rate"]
    lowest, highest = _DET_TICKS[0] / 2, 0.9
    x, y = (norm.ppf([min(max(value, lowest), highest) for value in values]) for values in (flagged, passed))
    axes.plot(x, y, color="black")
    point = (_operating_point(report)[0], 1 - _operating_point(report)[1])
    _mark_threshold(axes, *(float(norm.ppf(min(max(rate, lowest), highest))) for rate in point))
    positions, labels = norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS]
    axes.set_xticks(positions, labels)
    axes.set_yticks(positions, labels)
    limits = (norm.ppf(lowest), norm.ppf(highest))
    axes.set(
        title="DET curve, normal deviates (positive: fake)",
        xlabel="reals flagged (FPR), %",
        ylabel="fakes passed (FNR), %",
        xlim=limits,
        ylim=limits,
    )


def _draw_histogram(axes: Axes, report: dict[str, Any]) -> None:
    edges, calibration = report["histogram"]["edges"], report["calibration"]
    for label in LABELS:
        axes.stairs(report["histogram"][label], edges, fill=True, alpha=0.5, color=COLORS[label], label=label)
    axes.axvspan(calibration["real_below"], calibration["fake_above"], color="gray", alpha=0.3, label="uncertain")
    axes.axvline(calibration["fake_above"], color="gray", linestyle="--")
    axes.legend()
    axes.set(title="Scores", xlabel="p_fake, calibrated", ylabel="images")


def _draw_reliability(axes: Axes, report: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    for when, color in (("before", "tab:orange"), ("after", "black")):
        bins = report["calibration"]["reliability"][when]
        axes.plot(bins["p_fake"], bins["fakes"], marker="o", color=color, label=f"{when} calibration")
    axes.legend()
    axes.set(title="Reliability diagram", xlabel="mean p_fake in the bin", ylabel="fraction of fakes in the bin")


_PLOTS: dict[str, Callable[[Axes, dict[str, Any]], None]] = {
    "roc": _draw_roc,
    "roc_log": _draw_roc_log,
    "det": _draw_det,
    "histogram": _draw_histogram,
    "reliability": _draw_reliability,
}
