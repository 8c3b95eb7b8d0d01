"""Images of runs: learning curves as in the paper's Figs. 5-7, augmented samples as in its Fig. 3, search results."""

import io
from typing import Any

import numpy as np
from PIL import Image

from detector_core import plotting, storage
from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.images.augment import Augment
from detector_core.images.decode import decode
from detector_core.images.preprocess import square
from detector_core.training import lr_search
from detector_core.training.lr_search import COMPLETED, FAILED, OBJECTIVES, STOPPED, Trial

SHEET_COLUMNS, SHEET_ROWS, SHEET_GAP = 8, 5, 4
_MARKERS = {COMPLETED: ("o", "tab:blue"), STOPPED: ("x", "tab:gray"), FAILED: ("v", "tab:red")}


def learning_curves(history: list[dict[str, Any]], title: str) -> dict[str, bytes]:
    """PNG and SVG files by name: loss and accuracy of both splits over the epochs of one run."""
    figure = plotting.new_figure(8, 4.5)
    axes = figure.add_subplot()
    kept = min(history, key=lambda row: row["val_loss"])
    plotting.draw_learning_curves(axes, history, title=title, kept_epoch=kept["epoch"])
    axes.legend()
    return plotting.files("curves", figure)


def contact_sheet(data: Manifest, spec: RunSpec) -> bytes:
    """A PNG of training images, one per column: the whole image first, then random augmentations of it.

    A random crop is shown in its own size, in the upper left of its cell.
    """
    rows = data.split("train")
    chosen = rows.iloc[:: max(1, len(rows) // SHEET_COLUMNS)].head(SHEET_COLUMNS)
    augment, size = Augment(spec.augment), spec.preprocess.image_size
    step = size + SHEET_GAP
    sheet = np.full((SHEET_ROWS * step, SHEET_COLUMNS * step, 3), 255, np.uint8)
    for column, path in enumerate(chosen["path"]):
        image = square(decode(storage.read_bytes(storage.join(data.root, path))), spec.preprocess)
        versions = [image, *(augment(image, (spec.seed, row, column)) for row in range(1, SHEET_ROWS))]
        for row, version in enumerate(versions):
            height, width = version.shape[:2]
            sheet[row * step : row * step + height, column * step : column * step + width] = version
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def search_results(trials: list[Trial], objective: str, title: str, table_2_learning_rate: float | None) -> bytes:
    """A PNG of a search: the objective of each trial over its learning rate, with the best one circled.

    Trials with the same other settings are on one line.

    Args:
        table_2_learning_rate: drawn as a vertical line; None for a variant that Table II does not have.
    """
    figure = plotting.new_figure(7, 4.5)
    axes = figure.add_subplot()
    for status, (marker, color) in _MARKERS.items():
        points = [
            (trial.learning_rate, score)
            for trial in trials
            if trial.status == status and (score := trial.score(objective)) is not None
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=color, label=status, zorder=3)
    for text in dict.fromkeys(trial.settings_text for trial in trials if trial.settings):
        line = sorted(
            (trial.learning_rate, score)
            for trial in trials
            if trial.settings_text == text and (score := trial.score(objective)) is not None
        )
        axes.plot([rate for rate, _ in line], [score for _, score in line], linewidth=1, alpha=0.6, label=text)
    best = lr_search.best(trials, objective)
    best_score = best.score(objective) if best else None
    if best is not None and best_score is not None:
        axes.scatter(
            [best.learning_rate],
            [best_score],
            s=200, facecolors="none", edgecolors="tab:green", label=f"best: {best.learning_rate:.3g}", zorder=4,
        )  # fmt: skip
    if table_2_learning_rate is not None:
        axes.axvline(
            table_2_learning_rate, color="tab:orange", linestyle=":", label=f"Table II: {table_2_learning_rate:g}"
        )
    better = "lower" if OBJECTIVES[objective] == "min" else "higher"
    axes.set(
        title=title, xscale="log", xlabel="learning rate", ylabel=f"{objective} on validation ({better} is better)"
    )
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return plotting.png(figure)
