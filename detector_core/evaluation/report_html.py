"""A judgement for people: plots, and one HTML page that needs no network.

Reads ``report.json`` as :func:`detector_core.evaluation.scoring.report` makes it and computes nothing anew.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from detector_core.evaluation.explain import WORST
from detector_core.evaluation.metrics import ERROR_RATES, METRICS, RANKING_METRICS
from detector_core.evaluation.report import (
    UNCALIBRATED,
    format_estimate,
    format_number,
    format_percent,
    format_uncalibrated,
)
from detector_core.labels import FAKE, LABELS, REAL

PAGE = "report.html"
COLOURS = {REAL: "tab:blue", FAKE: "tab:red"}
_DET_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def draw_plots(report: dict[str, Any]) -> dict[str, bytes]:
    """PNGs by file name; those that need both classes only when there are both."""
    drawn = {
        name: draw
        for name, draw in _PLOTS.items()
        if report["det_curve"]["reals_flagged"] or draw not in (_draw_roc, _draw_det)
    }
    return {f"{name}.png": _png(draw, report) for name, draw in drawn.items()}


def render_page(report: dict[str, Any], images: dict[str, bytes]) -> str:
    """The whole report as one HTML page with its images inside."""
    model, data = report["model"], report["data"]
    title = f"{model['run']} on the {report['split']} split of {data['name']}"
    parts = [
        f"<h1>{_escape(title)}</h1>",
        *(f'<p class="warning">{_escape(text)}</p>' for text in report["warnings"]),
        f"<p>{_escape(model['variant'])}, weights <code>{model['weights_sha256'][:12]}</code>, "
        f"judged {_escape(report['created'])}. {report['images'][REAL]:,} real and {report['images'][FAKE]:,} fake "
        f"images. Positive means real; intervals are 95 %.</p>",
        "<h2>One threshold</h2>",
        f"<p>An image is called fake when p_fake is {report['threshold']:.4f} or more.</p>",
        _confusion(report["confusion"]),
        _table(("", ""), [(METRICS[name], format_percent(rate)) for name, rate in report["metrics"].items()]),
        *(
            [f"<p>The network {UNCALIBRATED}, before calibration: {_escape(format_uncalibrated(report))}.</p>"]
            if "uncalibrated" in report
            else []
        ),
        "<h2>Whatever the threshold</h2>",
        _table(("", ""), [(said, format_estimate(report["ranking"][name])) for name, said in RANKING_METRICS.items()]),
        "<h2>Real, uncertain or fake</h2>",
        _three_way(report),
        "<h2>Is p_fake a probability?</h2>",
        _calibration(report["calibration"]),
        *([_robustness(report["robustness"])] if "robustness" in report else []),
        "<h2>Plots</h2>",
        *(image(name, data) for name, data in images.items() if name != WORST),
        *([_worst(images[WORST])] if WORST in images else []),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def image(name: str, png: bytes, width: str = "28rem") -> str:
    """An ``img`` element that holds its image."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{_escape(name)}" style="width:{width}" src="{source}">'


def _worst(png: bytes) -> str:
    said = (
        "<p>The images farthest from their label, the worst first; red are errors at the threshold. Below each, what "
        "speaks for the wrong verdict (Grad-CAM): where the network looked, not where the image is false.</p>"
    )
    return f"<h2>What it gets most wrong</h2>{said}{image(WORST, png, width='100%')}"


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums }
.warning { background: #b00020; color: white; font-size: 1.4rem; font-weight: bold; padding: .6rem 1rem }
img { max-width: 100% }
"""


def _confusion(counts: dict[str, int]) -> str:
    rows = [
        ("called real", f"{counts['reals_passed']:,}", f"{counts['fakes_passed']:,} (fakes passed)"),
        ("called fake", f"{counts['reals_flagged']:,} (reals flagged)", f"{counts['fakes_caught']:,}"),
    ]
    return _table(("", "is real", "is fake"), rows)


def _three_way(report: dict[str, Any]) -> str:
    three, chosen = report["with_uncertain"], report["calibration"]
    held = (
        "" if chosen["max_fakes_passed"] is None else f", which held fakes passed at {chosen['max_fakes_passed']:.0%}"
    )
    verdicts = list(three["verdicts"][REAL])
    rows = [(f"{label}s", *(f"{three['verdicts'][label][v]:,}" for v in verdicts)) for label in LABELS]
    rates = [
        ("decided (not uncertain)", format_percent(three["coverage"])),
        ("of these right", format_percent(three["accuracy_of_decided"])),
        ("fakes passed, of all fakes", format_percent(three["fakes_passed_rate"])),
        ("reals flagged, of all reals", format_percent(three["reals_flagged_rate"])),
    ]
    said = (
        f"<p>Real below {chosen['real_below']:.4f}{held}; fake from {chosen['fake_above']:.4f} on; uncertain "
        f"between. Both were chosen on {_escape(_origin(chosen))}.</p>"
    )
    return said + _table(("", *(f"called {v}" for v in verdicts)), rows) + _table(("", ""), rates)


def _origin(chosen: dict[str, Any]) -> str:
    where = chosen["chosen_on"]
    if not where:
        return "nothing: they are the default"
    return f"the {where['n']:,} images of the {where['split']} split of {where['name']}"


def _calibration(chosen: dict[str, Any]) -> str:
    rows = [
        (label, *(f"{chosen[table][f'{name}_{when}']:.4f}" for when in ("before", "after") if chosen[table]))
        for table in ("fit", "on_these_images")
        for name, label in (("ece", "expected calibration error"), ("brier", "Brier score"))
        if chosen[table]
    ]
    places = [place for place in ("where it was fitted", "on these images") for _ in range(2)][-len(rows) :]
    named = [(f"{label}, {place}", *values) for (label, *values), place in zip(rows, places, strict=True)]
    return f"<p>Temperature {chosen['temperature']:.3f}.</p>" + _table(("", "before", "after"), named)


_GRID = {name: (RANKING_METRICS | METRICS)[name] for name in ("auc", "fakes_caught_at_0.01", "accuracy", *ERROR_RATES)}


def _robustness(rows: list[dict[str, Any]]) -> str:
    """A heat map: green is good, red is bad."""
    head = "".join(f"<th>{_escape(label)}</th>" for label in ("images", *_GRID.values()))
    body = "".join(
        f"<tr><td>{_escape(row['change'])}</td>" + "".join(_heat(name, row[name]) for name in _GRID) + "</tr>"
        for row in rows
    )
    said = "<p>Accuracy and both errors are at the frozen threshold, chosen on unchanged images.</p>"
    return f"<h2>Changed images</h2>{said}<table><tr>{head}</tr>{body}</table>"


def _heat(name: str, rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return f"<td>{_escape(format_number(rate))}</td>"
    # 0.5 is chance for these figures: it is as red as 0.
    good = (1 - rate["value"] if name in ERROR_RATES else rate["value"]) * 2 - 1
    text = format_number(rate) if name == "auc" else f"{100 * rate['value']:.2f} %"
    return f'<td style="background:hsl({120 * max(good, 0):.0f} 70% 80%)">{text}</td>'


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{_escape(cell)}</th>" for cell in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>" if top else f"<table>{body}</table>"


def _escape(text: str) -> str:
    return html.escape(text)


def _png(draw: Callable[[Axes, dict[str, Any]], None], report: dict[str, Any]) -> bytes:
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, report)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_roc(axes: Axes, report: dict[str, Any]) -> None:
    caught = [1 - passed for passed in report["det_curve"]["fakes_passed"]]
    axes.plot(report["det_curve"]["reals_flagged"], caught, color="black")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(title="ROC", xlabel="share of reals flagged", ylabel="share of fakes caught")


def _draw_det(axes: Axes, report: dict[str, Any]) -> None:
    flagged, passed = report["det_curve"]["reals_flagged"], report["det_curve"]["fakes_passed"]
    least, most = _DET_TICKS[0] / 2, 0.9
    x, y = (norm.ppf([min(max(value, least), most) for value in values]) for values in (flagged, passed))
    axes.plot(x, y, color="black")
    places, names = norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    limits = (norm.ppf(least), norm.ppf(most))
    axes.set(title="DET", xlabel="reals flagged, %", ylabel="fakes passed, %", xlim=limits, ylim=limits)


def _draw_histogram(axes: Axes, report: dict[str, Any]) -> None:
    edges, chosen = report["histogram"]["edges"], report["calibration"]
    for label in LABELS:
        axes.stairs(report["histogram"][label], edges, fill=True, alpha=0.5, color=COLOURS[label], label=label)
    axes.axvspan(chosen["real_below"], chosen["fake_above"], color="grey", alpha=0.3)
    axes.axvline(chosen["fake_above"], color="grey", linestyle="--")
    axes.legend()
    axes.set(title="scores; grey: uncertain", xlabel="p_fake, calibrated", ylabel="images")


def _draw_reliability(axes: Axes, report: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for when, colour in (("before", "tab:orange"), ("after", "black")):
        rows = report["calibration"]["reliability"][when]
        axes.plot(rows["p_fake"], rows["fakes"], marker="o", color=colour, label=f"{when} calibration")
    axes.legend()
    axes.set(title="reliability", xlabel="p_fake, mean of the bin", ylabel="share of fakes in the bin")


_PLOTS: dict[str, Callable[[Axes, dict[str, Any]], None]] = {
    "roc": _draw_roc,
    "det": _draw_det,
    "histogram": _draw_histogram,
    "reliability": _draw_reliability,
}
