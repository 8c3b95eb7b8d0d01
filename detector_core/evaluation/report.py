"""Scores and a calibration -> the report of an evaluation: a dict for ``report.json``, and a text table.

Not in this module: computing the scores (:mod:`detector_core.evaluation.scoring`), plots and the HTML page
(:mod:`detector_core.evaluation.report_html`).
"""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from detector_core import labels, storage
from detector_core.evaluation.calibration import UNCERTAIN, VERDICTS, Calibration, bound_warning, verdicts
from detector_core.evaluation.intervals import Flags, Scores
from detector_core.evaluation.metrics import (
    DECIMALS,
    ERROR_RATES,
    METRICS,
    NO_FAKES,
    NO_IMAGES,
    NO_REALS,
    RANKING_METRICS,
    ROBUSTNESS_METRICS,
    Confusion,
    brier_score,
    det_curve,
    expected_calibration_error,
    proportion,
    ranking,
    reliability,
    short_label,
)
from detector_core.labels import FAKE, LABELS, REAL
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact

if TYPE_CHECKING:
    import pandas as pd  # serving reads reports and does not need it

FORMAT = 2
REPORT = "report.json"
HISTOGRAM_BINS = 40
UNCALIBRATED_LABEL = "without calibration, at threshold 0.5"
SEEN_SPLIT_WARNINGS = {
    "train": "The model was trained on these images: the metrics say nothing about new images",
    "valid": "The weights and the thresholds were chosen on these images: these metrics are optimistic",
}
"""What the report of a split says first if the model was trained on the same data set."""
GENERATED = "Generated demo data: the metrics show that the pipeline works and say nothing about photographs"


def summarize(scores: "pd.DataFrame", calibration: Calibration) -> dict[str, Any]:
    """All metrics of ``report.json``, at thresholds that were chosen before.

    Args:
        scores: columns label and logit.

    Returns:
        ``confusion`` and ``metrics`` of real against fake at ``threshold`` (``fake_above``); ``uncalibrated``, the same
        metrics without calibration, at 0.5; ``with_uncertain``, the verdicts of each class when they may be uncertain;
        ``ranking`` and ``det_curve``; ``calibration`` with its error on these images; ``histogram`` of p_fake per
        class.
    """
    is_fake = labels.is_fake(scores["label"])
    logit = scores["logit"].to_numpy(dtype=np.float64)
    p_fake, uncalibrated = calibration.p_fake(logit), expit(logit)
    confusion = Confusion.from_scores(is_fake, p_fake, calibration.fake_above)
    at_half = Confusion.from_scores(is_fake, uncalibrated, 0.5)
    return {
        "images": {REAL: confusion.reals, FAKE: confusion.fakes},
        "threshold": calibration.fake_above,
        "confusion": vars(confusion),
        "metrics": {name: estimate.to_dict() for name, estimate in confusion.metrics().items()},
        "uncalibrated": {name: estimate.to_dict() for name, estimate in at_half.metrics().items()},
        "with_uncertain": count_verdicts(is_fake, p_fake, calibration),
        "ranking": {name: estimate.to_dict() for name, estimate in ranking(is_fake, logit).items()},
        "det_curve": det_curve(is_fake, logit),
        "calibration": {
            **calibration.to_dict(),
            "on_these_images": {
                "ece_before": expected_calibration_error(is_fake, uncalibrated),
                "ece_after": expected_calibration_error(is_fake, p_fake),
                "brier_before": brier_score(is_fake, uncalibrated),
                "brier_after": brier_score(is_fake, p_fake),
            },
            "reliability": {"before": reliability(is_fake, uncalibrated), "after": reliability(is_fake, p_fake)},
        },
        "histogram": {
            "edges": np.linspace(0, 1, HISTOGRAM_BINS + 1).tolist(),
            REAL: np.histogram(p_fake[~is_fake], HISTOGRAM_BINS, (0, 1))[0].tolist(),
            FAKE: np.histogram(p_fake[is_fake], HISTOGRAM_BINS, (0, 1))[0].tolist(),
        },
    }


def count_verdicts(is_fake_N: Flags, p_fake_N: Scores, calibration: Calibration) -> dict[str, Any]:
    """The verdicts of each class, the fraction decided (coverage), and how often a decision is right and wrong.

    ``fakes_passed_rate`` and ``reals_flagged_rate`` are fractions of *all* fakes and reals, decided or not. They are
    not the rates of the same names under ``metrics``: there an uncertain fake has passed, here it has not.
    """
    verdict_N = verdicts(p_fake_N, calibration)
    truth_N = np.where(is_fake_N, FAKE, REAL)
    counts = {label: {v: int(((truth_N == label) & (verdict_N == v)).sum()) for v in VERDICTS} for label in LABELS}
    decided, correct = int(np.isin(verdict_N, LABELS).sum()), int((verdict_N == truth_N).sum())
    return {
        "verdicts": counts,
        "coverage": proportion(decided, len(truth_N), NO_IMAGES).to_dict(),
        "accuracy_of_decided": proportion(correct, decided, "every verdict is uncertain").to_dict(),
        "fakes_passed_rate": proportion(counts[FAKE][REAL], int(is_fake_N.sum()), NO_FAKES).to_dict(),
        "reals_flagged_rate": proportion(counts[REAL][FAKE], int((~is_fake_N).sum()), NO_REALS).to_dict(),
    }


def build_report(
    scores: "pd.DataFrame", calibration: Calibration, *, model: dict[str, Any], data: dict[str, Any], split: str
) -> dict[str, Any]:
    """``report.json``: what was evaluated, what a reader must know first, and the metrics of :func:`summarize`.

    Args:
        scores: columns label and logit.
        model: the model: ``run``, ``variant``, ``weights_sha256``, and ``data``, what it was trained on.
        data: :meth:`detector_core.data.manifest.Manifest.describe` of the images.
    """
    seen = split in SEEN_SPLIT_WARNINGS and model["data"]["fingerprint"] == data["fingerprint"]
    return {
        "format": FORMAT,
        "model": model,
        "data": data,
        "split": split,
        "seen": seen,
        "warnings": _warnings(calibration, model["data"], data, split),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **summarize(scores, calibration),
    }


def _warnings(calibration: Calibration, trained_on: dict[str, Any], data: dict[str, Any], split: str) -> list[str]:
    chosen_on = calibration.chosen_on
    same = trained_on["fingerprint"] == data["fingerprint"]
    warnings = [SEEN_SPLIT_WARNINGS[split]] if split in SEEN_SPLIT_WARNINGS and same else []
    if data["generated"] or trained_on["generated"]:
        warnings.append(GENERATED)
    if not same:
        warnings.append(
            f"Not the model's own data set: it was trained on {trained_on['name']} "
            f"({trained_on['fingerprint'][:12]}), these images are from {data['name']} ({data['fingerprint'][:12]})"
        )
    if not chosen_on:
        warnings.append("No thresholds were chosen: the threshold is 0.5, and no verdict is uncertain")
    elif split not in SEEN_SPLIT_WARNINGS and chosen_on["fingerprint"] != trained_on["fingerprint"]:
        warnings.append(f"The thresholds were chosen on {chosen_on['name']}, not on the model's own data set")
    at_bound = bound_warning(calibration)
    return [*warnings, *([at_bound] if at_bound else [])]


def describe_model(folder: str, artifact: Artifact) -> dict[str, Any]:
    """The ``model`` of a report.

    Args:
        folder: the model folder.
    """
    return {
        "folder": folder,
        "run": artifact.run,
        "variant": artifact.spec.variant,
        "weights_sha256": artifact.weights_sha256,
        "data": artifact.data,
    }


def report_folder(model_folder: str, split: str, fingerprint: str | None = None) -> str:
    """The folder of the evaluation on a split, below the model folder.

    Args:
        fingerprint: of the data set; None for the data set that the model was trained on.
    """
    name = f"{split}-{fingerprint[:12]}" if fingerprint else split
    return storage.join(model_folder, artifacts.EVALUATION, name)


def report_paths(model_folder: Path, split: str) -> list[Path]:
    """The files of all reports on a split, of whatever data set, in a local model folder."""
    return sorted((model_folder / artifacts.EVALUATION).glob(f"{split}*/{REPORT}"))


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
        f"  {UNCALIBRATED_LABEL}: {format_uncalibrated(report)}",
        *_uncertain_lines(report),
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

    Verdicts that may be uncertain and the model without calibration have other rates, under names of their own.
    """
    rates = [(short_label(name), format_percent(report["metrics"][name])) for name in ERROR_RATES]
    return [*rates, (RANKING_METRICS["auc"], format_estimate("auc", report["ranking"]["auc"]))]


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
