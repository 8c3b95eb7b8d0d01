"""Images of a run: learning curves (as the paper's Figs. 5-7) and augmented samples (as its Fig. 3)."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.images.augment import Augment
from detector_core.images.decode import decode
from detector_core.images.preprocess import square

SHEET_COLUMNS, SHEET_ROWS, SHEET_GAP = 8, 4, 4


def learning_curves(history: list[dict[str, Any]], title: str) -> bytes:
    """A PNG: loss and accuracy of both splits over the epochs, in the colours of the paper's figures."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    for column, colour, label in (
        ("train_loss", "tab:blue", "training loss"),
        ("val_loss", "tab:green", "validation loss"),
        ("train_accuracy", "tab:orange", "training accuracy"),
        ("val_accuracy", "tab:red", "validation accuracy"),
    ):
        axes.plot(epochs, [row[column] for row in history], color=colour, label=label, marker="o", markersize=3)
    best = min(history, key=lambda row: row["val_loss"])
    axes.axvline(best["epoch"], color="grey", linestyle=":", label=f"kept: epoch {best['epoch']}")
    axes.set(title=title, xlabel="epoch", ylabel="loss, accuracy", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def contact_sheet(data: Manifest, spec: RunSpec) -> bytes:
    """A PNG: training images as the network sees them, the same image's four draws below each other."""
    rows = data.split("train")
    chosen = rows.iloc[:: max(1, len(rows) // SHEET_COLUMNS)].head(SHEET_COLUMNS)
    augment, size = Augment(spec.augment), spec.preprocess.image_size
    step = size + SHEET_GAP
    sheet = np.full((SHEET_ROWS * step, SHEET_COLUMNS * step, 3), 255, np.uint8)
    for column, path in enumerate(chosen["path"]):
        image = square(decode(storage.read_bytes(storage.join(data.root, path))), spec.preprocess)
        for row in range(SHEET_ROWS):
            changed = augment(image, (spec.seed, row, column))
            sheet[row * step : row * step + size, column * step : column * step + size] = changed
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
