"""Model + images -> scores -> report, in plain values.

Left out: how the work is shared out (``jobs.evaluate``), plots and the page
(:mod:`detector_core.evaluation.report_html`).
"""

import datetime
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from detector_core import labels
from detector_core.config import PreprocessSpec
from detector_core.data.loading import Batch, ImageDataset, ValidSampler
from detector_core.errors import BadImage, BrokenArtifact
from detector_core.evaluation.calibration import UNCERTAIN, VERDICTS, Calibration, verdicts
from detector_core.evaluation.metrics import (
    ERRORS,
    NO_FAKES,
    NO_IMAGES,
    NO_REALS,
    RANKING,
    RATES,
    Confusion,
    brier,
    curve,
    ece,
    ranking,
    reliability,
    share,
)
from detector_core.images.preprocess import normalize
from detector_core.labels import FAKE, LABELS, REAL

FORMAT = 1
SCORES, REPORT = "scores.parquet", "report.json"
BATCHES_AHEAD = 2
AT_HALF = "as it is, at 0.5"
SEEN_SPLITS = {
    "train": "THE MODEL WAS TRAINED ON THESE IMAGES: THE FIGURES SAY NOTHING ABOUT NEW ONES",
    "valid": "THE WEIGHTS AND THE THRESHOLDS WERE CHOSEN ON THESE IMAGES: THE FIGURES FLATTER",
}
"""What a report of a split must say in large letters."""
GENERATED = "generated demo data: the figures show that the chain works and say nothing about photographs"


def score(
    model: torch.nn.Module,
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    *,
    batch_size: int = 64,
    device: str = "cpu",
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """The logit of each image of a manifest, in the order of its rows.

    Each image is judged alone (eval mode, float32), so batches and workers change the scores by float noise at most.

    Args:
        rows: ``path`` and ``label`` are read.
        threads: how many decode, a few batches ahead of the network.
        progress: called with the number of images after each batch.

    Returns:
        Columns path, label, logit (float32), p_fake (float64, uncalibrated).

    Raises:
        BadImage: an image that is gone or not whole; names the file.
        BrokenArtifact: the network gives a score that is not finite.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = ImageDataset(rows, root, preprocess)
    logit_N = np.empty(len(rows), dtype=np.float32)
    with torch.inference_mode():
        for batch in batches(images, batch_size, threads):
            if batch.broken:
                raise BadImage(batch.broken[0])
            x_BCHW = normalize(batch.pixels_BSSC.to(device), preprocess)
            logit_N[batch.index_B.numpy()] = model(x_BCHW).flatten().float().cpu().numpy()
            if progress:
                progress(len(batch.index_B))
    wrong = np.flatnonzero(~np.isfinite(logit_N))
    if len(wrong):
        raise BrokenArtifact(f"the network gives {logit_N[wrong[0]]} for {images.paths[wrong[0]]}: train it again")
    return pd.DataFrame(
        {
            "path": rows["path"].to_numpy(),
            "label": rows["label"].to_numpy(),
            "logit": logit_N,
            "p_fake": expit(logit_N.astype(np.float64)),
        }
    )


def batches(images: ImageDataset, batch_size: int, threads: int) -> Iterator[Batch]:
    """All images in order. Threads will do: decoding and resizing leave Python's lock alone."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[Any]]] = deque()
        for keys in ValidSampler(len(images), batch_size):
            waiting.append([pool.submit(images.__getitem__, key) for key in keys])
            if len(waiting) > BATCHES_AHEAD:
                yield images.collate([sample.result() for sample in waiting.popleft()])
        for batch in waiting:
            yield images.collate([sample.result() for sample in batch])


def judge(scores: pd.DataFrame, calibration: Calibration) -> dict[str, Any]:
    """What scores are worth, with thresholds chosen before: the figures of ``report.json``.

    Returns:
        ``confusion`` and ``rates`` of the two-way call at ``threshold`` (``fake_above``); ``at_half``, the rates of the
        network as it is at 0.5, without calibration or chosen threshold; ``three_way``, what becomes
        of each class when the verdict may be uncertain; ``ranking`` and ``curve``; ``calibration`` with its error on
        these images; ``histogram`` of p_fake per class.
    """
    is_fake = labels.is_fake(scores["label"])
    logit = scores["logit"].to_numpy(dtype=np.float64)
    p_fake = calibration.p_fake(logit)
    confusion = Confusion.at(is_fake, p_fake, calibration.fake_above)
    return {
        "images": {REAL: confusion.reals, FAKE: confusion.fakes},
        "threshold": calibration.fake_above,
        "confusion": vars(confusion),
        "rates": {name: rate.to_dict() for name, rate in confusion.rates().items()},
        "at_half": {name: rate.to_dict() for name, rate in Confusion.at(is_fake, expit(logit), 0.5).rates().items()},
        "three_way": three_way(is_fake, p_fake, calibration),
        "ranking": {name: rate.to_dict() for name, rate in ranking(is_fake, logit).items()},
        "curve": curve(is_fake, logit),
        "calibration": {
            **calibration.to_dict(),
            "here": {
                "ece_before": ece(is_fake, expit(logit)),
                "ece_after": ece(is_fake, p_fake),
                "brier_before": brier(is_fake, expit(logit)),
                "brier_after": brier(is_fake, p_fake),
            },
            "reliability": {"before": reliability(is_fake, expit(logit)), "after": reliability(is_fake, p_fake)},
        },
        "histogram": {
            "edges": np.linspace(0, 1, 41).tolist(),
            REAL: np.histogram(p_fake[~is_fake], 40, (0, 1))[0].tolist(),
            FAKE: np.histogram(p_fake[is_fake], 40, (0, 1))[0].tolist(),
        },
    }


def three_way(is_fake: Any, p_fake: Any, calibration: Calibration) -> dict[str, Any]:
    """The verdicts each class gets, the share decided, and how often a decision is right and wrong.

    ``fakes_passed_rate`` and ``reals_flagged_rate`` are shares of *all* fakes and reals, decided or not.
    """
    verdict = verdicts(p_fake, calibration)
    truth = np.where(is_fake, FAKE, REAL)
    table = {label: {v: int(((truth == label) & (verdict == v)).sum()) for v in VERDICTS} for label in LABELS}
    decided = int(np.isin(verdict, LABELS).sum())
    return {
        "verdicts": table,
        "coverage": share(decided, len(truth), NO_IMAGES).to_dict(),
        "accuracy_of_decided": share(int((verdict == truth).sum()), decided, "every verdict is uncertain").to_dict(),
        "fakes_passed_rate": share(table[FAKE][REAL], int(is_fake.sum()), NO_FAKES).to_dict(),
        "reals_flagged_rate": share(table[REAL][FAKE], int((~is_fake).sum()), NO_REALS).to_dict(),
    }


def report(
    scores: pd.DataFrame, calibration: Calibration, *, model: dict[str, Any], data: dict[str, Any], split: str
) -> dict[str, Any]:
    """``report.json``: what was judged, what a reader must know first, and :func:`judge`'s figures.

    Args:
        model: what was judged: ``run``, ``variant``, ``weights_sha256``, and ``data``, what it was trained on.
        data: :meth:`detector_core.data.manifest.Manifest.describe` of the images.
    """
    trained_on = model["data"]
    same = trained_on["fingerprint"] == data["fingerprint"]
    warnings = [SEEN_SPLITS[split]] if split in SEEN_SPLITS and same else []
    if data["generated"] or trained_on["generated"]:
        warnings.append(GENERATED)
    if not same:
        warnings.append(
            f"another data set than the model's: it was trained on {trained_on['name']} "
            f"({trained_on['fingerprint'][:12]}), these images are from {data['name']} ({data['fingerprint'][:12]})"
        )
    chosen_on = calibration.chosen_on
    if not chosen_on:
        warnings.append("no thresholds were chosen: 0.5 is used, and no verdict is uncertain")
    elif split not in SEEN_SPLITS and chosen_on["fingerprint"] != trained_on["fingerprint"]:
        warnings.append(f"the thresholds were chosen on {chosen_on['name']}, not on the model's own data")
    return {
        "format": FORMAT,
        "model": model,
        "data": data,
        "split": split,
        "seen": split in SEEN_SPLITS and same,
        "warnings": warnings,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **judge(scores, calibration),
    }


def table(report: dict[str, Any]) -> str:
    """A report for people: percent with 95 % intervals, both errors by name."""
    title = f"{report['model']['run']} on the {report['split']} split of {report['data']['name']}"
    counts, ranks, three = report["confusion"], report["ranking"], report["three_way"]
    lines = [title, *(f"  !! {warning}" for warning in report["warnings"])]
    lines += [
        f"  {'':20}{'is real':>10}{'is fake':>10}",
        f"  {'called real':20}{counts['reals_passed']:>10,}{counts['fakes_passed']:>10,}",
        f"  {'called fake':20}{counts['reals_flagged']:>10,}{counts['fakes_caught']:>10,}",
        f"  called fake from p_fake {report['threshold']:.4f} on; 95 % intervals:",
    ]
    for name, rate in report["rates"].items():
        lines.append(f"  {RATES[name].upper() if name in ERRORS else RATES[name]:30}{percent(rate)}")
    lines += [f"  {said:30}{figure(ranks[name])}" for name, said in RANKING.items()]
    if "at_half" in report:  # not in reports of before
        lines.append(f"  {AT_HALF}: {half(report)}")
    calibration = report["calibration"]
    rows = {label: ", ".join(f"{n:,} {v}" for v, n in three["verdicts"][label].items()) for label in LABELS}
    lines += [
        f"  with {UNCERTAIN} from p_fake {calibration['real_below']:.4f} to {calibration['fake_above']:.4f}"
        f"{'' if calibration['real_below'] < calibration['fake_above'] else ' (nothing)'}:",
        *(f"    {label + 's get':12}{row}" for label, row in rows.items()),
        f"    decided {percent(three['coverage'])}, of these right {percent(three['accuracy_of_decided'])}",
        f"  calibration error (ECE) {calibration['here']['ece_before']:.4f} -> {calibration['here']['ece_after']:.4f} "
        f"with temperature {calibration['temperature']:.3f}",
    ]
    if "robustness" in report:
        lines.append(f"  {'changed images':30}{'AUC':>8}{'accuracy':>10}{'passed':>9}{'flagged':>9}")
        lines += [_changed(row) for row in report["robustness"]]
    return "\n".join(lines)


def half(report: dict[str, Any]) -> str:
    """The errors of the network as it is, at 0.5."""
    shown = ("accuracy", *ERRORS)
    return ", ".join(f"{RATES[name]} {percent(report['at_half'][name])}" for name in shown)


def _changed(row: dict[str, Any]) -> str:
    auc, *rates = (row[name]["value"] for name in ("auc", "accuracy", "fakes_passed_rate", "reals_flagged_rate"))
    cells = [f"{'-':>8}" if auc is None else f"{auc:8.4f}", *("-" if r is None else f"{100 * r:.2f} %" for r in rates)]
    return f"  {row['change']:30}{cells[0]}{cells[1]:>10}{cells[2]:>9}{cells[3]:>9}"


def percent(rate: dict[str, Any]) -> str:
    """``98.21 % (97.10-98.90)``, or why there is none."""
    if rate["value"] is None:
        return f"undefined: {rate['reason']}"
    interval = f" ({rate['low']:.2%}-{rate['high']:.2%})".replace("%", "") if "low" in rate else ""
    return f"{100 * rate['value']:.2f} %{interval}"


def number(rate: dict[str, Any]) -> str:
    """Four digits, or why there are none."""
    return f"undefined: {rate['reason']}" if rate["value"] is None else f"{rate['value']:.4f}"


def figure(rate: dict[str, Any]) -> str:
    """Percent for a share, which has an interval; four digits for what is none."""
    return percent(rate) if "low" in rate else number(rate)
