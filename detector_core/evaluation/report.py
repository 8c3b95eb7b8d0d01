"""Scores and a calibration -> the report of an evaluation, a dict for ``report.json``.

Not in this module: computing the scores (:mod:`detector_core.evaluation.scoring`), the report as text
(:mod:`detector_core.evaluation.report_text`), plots and the HTML page (:mod:`detector_core.evaluation.report_html`).
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from detector_core import labels, storage
from detector_core.config import INIT_KEYWORDS
from detector_core.evaluation import flag_value
from detector_core.evaluation.by_source import evaluate_sources
from detector_core.evaluation.calibration import VERDICTS, Calibration, bound_warning, verdicts
from detector_core.evaluation.intervals import Flags, Scores
from detector_core.evaluation.metrics import (
    NO_FAKES,
    NO_IMAGES,
    NO_REALS,
    Confusion,
    brier_score,
    det_curve,
    expected_calibration_error,
    proportion,
    ranking,
    reliability,
)
from detector_core.labels import FAKE, LABELS, REAL
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact

if TYPE_CHECKING:
    import pandas as pd  # serving reads reports and does not need it

    from detector_core.data.seen import Overlap

FORMAT = 2
REPORT = "report.json"
HISTOGRAM_BINS = 40
SEEN_SPLIT_WARNINGS = {
    "train": "The model was trained on these images: the metrics say nothing about new images",
    "valid": "The weights and the thresholds were chosen on these images: these metrics are optimistic",
}
"""What the report of a split says first if the model was trained on the same data set."""
AUDIT_WARNING = "The audit of the data set:"
GENERATED = "Generated demo data: the metrics show that the pipeline works and say nothing about photographs"


def summarize(scores: "pd.DataFrame", calibration: Calibration) -> dict[str, Any]:
    """All metrics of ``report.json``, at thresholds that were chosen before.

    Args:
        scores: columns label and logit.

    Returns:
        ``confusion`` and ``metrics`` of real against fake at ``threshold`` (``fake_above``); ``uncalibrated``, the same
        metrics without calibration, at 0.5; ``flag_value``, how many flags are right at several shares of fakes;
        ``with_uncertain``, the verdicts of each class when they may be uncertain;
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
        "flag_value": flag_value.of_confusion(confusion),
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
    scores: "pd.DataFrame",
    calibration: Calibration,
    *,
    model: dict[str, Any],
    data: dict[str, Any],
    split: str,
    data_warnings: Sequence[str] = (),
    overlap: "Overlap | None" = None,
    baselines: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """``report.json``: what was evaluated, what a reader must know first, and the metrics of :func:`summarize`.

    Args:
        scores: columns label, logit and, if the images have one, source. Images of sources that the model was trained
            without are in ``sources`` alone; ``sources`` is there if the images have more than one.
        model: the model: ``run``, ``variant``, ``weights_sha256``, and ``data``, what it was trained on.
        data: :meth:`detector_core.data.manifest.Manifest.describe` of the images.
        data_warnings: what the audit of the data set warned of.
        overlap: how many of the images the model was trained or chosen on, if that was looked for.
        baselines: of :func:`detector_core.evaluation.baselines.evaluate_baselines`, if they were fitted.
    """
    own = model["data"]["fingerprint"] == data["fingerprint"]
    left_out = tuple(model["data"].get("left_out", ())) if own else ()
    sources = evaluate_sources(scores, calibration, left_out) if "source" in scores else None
    seen = own and split in SEEN_SPLIT_WARNINGS
    return {
        "format": FORMAT,
        "model": model,
        "data": data,
        "split": split,
        "seen": seen,
        **({"overlap": overlap.to_dict()} if overlap else {}),
        **({"baselines": list(baselines)} if baselines else {}),
        "warnings": [
            *([_overlap_warning(overlap)] if overlap and overlap.found and not seen else []),
            *_warnings(calibration, model["data"], data, split),
            *(f"{AUDIT_WARNING} {warning}" for warning in data_warnings),
        ],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **summarize(without_sources(scores, left_out), calibration),
        **({"sources": sources} if sources else {}),
    }


def without_sources(images: "pd.DataFrame", left_out: Sequence[str]) -> "pd.DataFrame":
    """The images of other sources; all images if there are no others.

    Args:
        images: has a column source unless nothing is left out.
    """
    if not left_out:
        return images
    kept = images[~images["source"].isin(left_out)]
    return images if kept.empty else kept.reset_index(drop=True)


def _overlap_warning(overlap: "Overlap") -> str:
    counts = {
        f"{overlap.exact:,} of them": overlap.exact,
        f"near-duplicates of {overlap.near or 0:,} of them": overlap.near,
    }
    known = " and ".join(text for text, count in counts.items() if count)
    return (
        f"Not all of these {overlap.images:,} images are new to the model: it was trained or chosen on {known} "
        f"(overlap in {REPORT} has examples): the metrics may be too optimistic"
    )


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
    settings = artifact.spec.flat()
    if settings["model.init"] not in INIT_KEYWORDS:
        settings["model.init"] = "a file"  # its path means nothing to other readers
    return {
        "folder": folder,
        "run": artifact.run,
        "variant": artifact.spec.variant,
        "weights_sha256": artifact.weights_sha256,
        "data": artifact.data,
        "git_commit": artifact.git_commit,
        "settings": settings,
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
