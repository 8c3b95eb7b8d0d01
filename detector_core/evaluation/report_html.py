"""The report of an evaluation as one HTML page that opens offline, and its files.

Reads ``report.json`` as :func:`detector_core.evaluation.report.build_report` makes it, and computes nothing itself.
"""

import io
import json
from typing import Any

import pandas as pd

from detector_core import storage
from detector_core.evaluation import flag_value
from detector_core.evaluation.explain import WORST_IMAGES
from detector_core.evaluation.html_page import escape, html_table, image, interval_below, page, table, warnings
from detector_core.evaluation.metrics import (
    DECIMALS,
    ERROR_RATES,
    METRICS,
    RANKING_METRICS,
    ROBUSTNESS_METRICS,
    short_label,
)
from detector_core.evaluation.report import REPORT
from detector_core.evaluation.report_plots import draw_plots
from detector_core.evaluation.report_tables import report_tables
from detector_core.evaluation.report_text import (
    BASELINE_HEADER,
    SOURCE_HEADER,
    UNCALIBRATED_LABEL,
    baseline_cells,
    format_estimate,
    format_number,
    format_percent,
    format_uncalibrated,
    headline,
    source_cells,
)
from detector_core.evaluation.scoring import SCORES
from detector_core.labels import FAKE, LABELS, REAL

PAGE = "report.html"
_CHANCE = {"fakes_caught_at_0.01": 0.01}
"""What a model that guesses scores in a metric where that is not 0.5; the color of a cell starts there."""


def write(folder: str, scores: pd.DataFrame, report: dict[str, Any], images: dict[str, bytes]) -> str:
    """Writes the files of an evaluation, ``report.json`` last, and returns its path.

    Args:
        folder: folder or URI.
        scores: saved as ``scores.parquet``.
        images: PNG files by file name, written next to the plots and embedded in the page.
    """
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False)
    plots = draw_plots(report) | images
    files = {
        SCORES: buffer.getvalue(),
        **plots,
        **report_tables(report),
        PAGE: render_page(report, plots).encode(),
        REPORT: json.dumps(report, indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)
    return storage.join(folder, REPORT)


def render_page(report: dict[str, Any], images: dict[str, bytes]) -> str:
    """The whole report as one HTML page.

    Args:
        images: files by name. The PNG files are embedded in the page; :data:`WORST_IMAGES` has a section of its own.
    """
    model, data = report["model"], report["data"]
    title = f"{model['run']} on the {report['split']} split of {data['name']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        warnings(report["warnings"]),
        f"<p>{escape(model['variant'])}, weights <code>{model['weights_sha256'][:12]}</code>, evaluated "
        f"{escape(report['created'])} on {report['images'][REAL]:,} real and {report['images'][FAKE]:,} fake images. "
        f"Intervals are 95% confidence intervals.</p>",
        table(("", ""), headline(report)),
        f"<p>An image is flagged, that is called fake, if p_fake is at least {report['threshold']:.4f}. Fakes passed "
        f"are all fakes that are not flagged.</p>",
        "<h2>Real or fake, at this threshold</h2>",
        "<p>The positive class is real, as in the paper.</p>",
        _confusion(report["confusion"]),
        table(("", ""), [(METRICS[name], format_percent(value)) for name, value in report["metrics"].items()]),
        f"<p>{UNCALIBRATED_LABEL.capitalize()}: {escape(format_uncalibrated(report))}.</p>",
        _flag_value(report),
        "<h2>Ranking, independent of the threshold</h2>",
        "<p>Here the positive class is fake.</p>",
        table(("", ""), _ranking(report["ranking"])),
        *([_sources(report["sources"])] if "sources" in report else []),
        *([_baselines(report)] if "baselines" in report else []),
        "<h2>Real, uncertain or fake</h2>",
        _with_uncertain(report),
        "<h2>Calibration: is p_fake a probability?</h2>",
        _calibration(report["calibration"]),
        *([_robustness(report["robustness"])] if "robustness" in report else []),
        "<h2>Plots</h2>",
        *(image(name, png) for name, png in images.items() if name.endswith(".png") and name != WORST_IMAGES),
        *([_run(model)] if "settings" in model else []),
        *([_worst_images(images[WORST_IMAGES])] if WORST_IMAGES in images else []),
    ]
    return page(title, parts)


def _ranking(ranks: dict[str, Any]) -> list[tuple[str, str]]:
    return [(label, format_estimate(name, ranks[name])) for name, label in RANKING_METRICS.items()]


def _run(model: dict[str, Any]) -> str:
    """What the model was trained on and with; a report made by an older version does not say it."""
    counts = model["data"].get("counts", {})
    splits = [(split, *(f"{count[label]:,}" for label in LABELS)) for split, count in counts.items()]
    settings = [(name, str(value)) for name, value in model["settings"].items()]
    commit = f", git commit <code>{escape(model['git_commit'])}</code>" if model["git_commit"] else ""
    return (
        f"<h2>The run</h2><p>Trained on {escape(model['data']['name'])}, fingerprint "
        f"<code>{model['data']['fingerprint'][:12]}</code>{commit}.</p>"
        f"{table(('images', *LABELS), splits)}{table(('setting', ''), settings)}"
    )


def _flag_value(report: dict[str, Any]) -> str:
    text = (
        "<p>How many of 100 flags are right (precision of the verdict fake, PPV) depends on how many images are fake "
        "where the model is used. From the two error rates above, which may be higher on other images.</p>"
    )
    rows = flag_value.describe(flag_value.of_report(report))
    return f"<h2>What a flag is worth</h2>{text}{table(('', ''), rows)}"


def _sources(sources: dict[str, Any]) -> str:
    text = (
        "<p>At the frozen threshold. A source of one class is ranked against all images of the other class, so its "
        "average precision depends on how many there are. The means of fakes passed and of both ranking metrics are "
        "over the sources with fakes, and count no source that was left out of training.</p>"
    )
    return f"<h2>By source</h2>{text}{table(SOURCE_HEADER, map(interval_below, source_cells(sources)))}"


def _baselines(report: dict[str, Any]) -> str:
    text = (
        "<p>Logistic regressions, fitted on the training split of the model's own data set: on file facts (size, "
        "format, compression, brightness) and on the radial power spectrum. Neither looks at a face. What the model "
        "has learnt is what it has above them.</p>"
    )
    return f"<h2>Baselines without a network</h2>{text}{table(BASELINE_HEADER, baseline_cells(report))}"


def _worst_images(png: bytes) -> str:
    text = (
        "<p>The images whose p_fake is farthest from their label, the worst first; red titles are errors at the "
        "threshold. Below each image, a heat map (Grad-CAM) of the evidence for the wrong verdict: it shows where the "
        "network looked, not where an image was manipulated.</p>"
    )
    return f"<h2>Largest errors</h2>{text}{image(WORST_IMAGES, png, width='100%')}"


def _confusion(counts: dict[str, int]) -> str:
    rows = [
        ("called real", f"{counts['reals_passed']:,}", f"{counts['fakes_passed']:,} (fakes passed)"),
        ("called fake", f"{counts['reals_flagged']:,} (reals flagged)", f"{counts['fakes_caught']:,}"),
    ]
    return table(("", "is real", "is fake"), rows)


def _with_uncertain(report: dict[str, Any]) -> str:
    with_uncertain, calibration = report["with_uncertain"], report["calibration"]
    limit = ""
    if calibration["max_fakes_passed"] is not None:
        limit = f" (chosen so that at most {calibration['max_fakes_passed']:.0%} of those fakes pass)"
    verdicts = list(with_uncertain["verdicts"][REAL])
    counts = [(f"{label}s", *(f"{with_uncertain['verdicts'][label][v]:,}" for v in verdicts)) for label in LABELS]
    fractions = [
        ("decided, not uncertain (coverage)", format_percent(with_uncertain["coverage"])),
        ("correct among those decided", format_percent(with_uncertain["accuracy_of_decided"])),
        ("fakes called real, of all fakes", format_percent(with_uncertain["fakes_passed_rate"])),
        ("reals called fake, of all reals", format_percent(with_uncertain["reals_flagged_rate"])),
    ]
    text = (
        f"<p>Called real if p_fake is below {calibration['real_below']:.4f}{limit}, fake if it is at least "
        f"{calibration['fake_above']:.4f}, uncertain in between. {escape(_origin(calibration['chosen_on']))}</p>"
    )
    return text + table(("", *(f"called {v}" for v in verdicts)), counts) + table(("", ""), fractions)


def _origin(chosen_on: dict[str, Any]) -> str:
    if not chosen_on:
        return "These thresholds are the defaults; none were chosen."
    if "flag_at_most" in chosen_on:
        photographs = f"{chosen_on['reals']:,} photographs of {chosen_on['name']}"
        lower = f", the lower one with {chosen_on['fakes']:,} fakes from there" if chosen_on["fakes"] else ""
        return (
            f"The upper threshold was chosen on {photographs}, to flag at most {chosen_on['flag_at_most']:.2%}{lower}."
        )
    images = f"{chosen_on['n']:,} images of the {chosen_on['split']} split of {chosen_on['name']}"
    return f"Both thresholds were chosen on the {images}."


def _calibration(calibration: dict[str, Any]) -> str:
    rows = [
        (f"{label}, {where}", *(f"{calibration[key][f'{name}_{when}']:.4f}" for when in ("before", "after")))
        for key, where in (("fit", "where it was fitted"), ("on_these_images", "on these images"))
        for name, label in (("ece", "expected calibration error (ECE)"), ("brier", "Brier score"))
        if calibration[key]
    ]
    header = ("", "before calibration", "after")
    return f"<p>Temperature {calibration['temperature']:.3f}. Lower is better.</p>" + table(header, rows)


def _robustness(rows: list[dict[str, Any]]) -> str:
    """A table of changes and metrics, colored from red (no better than guessing) to green (perfect)."""
    header = ("images", *map(short_label, ROBUSTNESS_METRICS))
    cells = (
        f"<td>{escape(row['change'])}</td>" + "".join(_colored_cell(name, row[name]) for name in ROBUSTNESS_METRICS)
        for row in rows
    )
    text = (
        "<p>The same images, changed as the first column says. Accuracy and both error rates are at the frozen "
        "threshold, which was chosen on unchanged images.</p>"
    )
    return f"<h2>Robustness: changed images</h2>{text}{html_table(header, cells)}"


def _colored_cell(name: str, estimate: dict[str, Any]) -> str:
    value = estimate["value"]
    if value is None:
        return f"<td>{escape(format_number(estimate))}</td>"
    score, chance = 1 - value if name in ERROR_RATES else value, _CHANCE.get(name, 0.5)
    goodness = max(0, (score - chance) / (1 - chance))
    text = f"{value:.4f}" if name in DECIMALS else f"{100 * value:.2f}%"
    return f'<td style="background:hsl({120 * goodness:.0f} 70% 80%)">{text}</td>'
