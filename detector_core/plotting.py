"""Matplotlib figures as PNG and SVG bytes, and the axes of learning curves. Draws in memory and needs no display.

Importing this module imports matplotlib, so code that runs in training workers or in the service must not need it.
"""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DPI = 120
LEARNING_CURVES = {
    "train_loss": ("tab:blue", "training loss"),
    "val_loss": ("tab:green", "validation loss"),
    "train_accuracy": ("tab:orange", "training accuracy"),
    "val_accuracy": ("tab:red", "validation accuracy"),
}
"""Columns of an epoch's report: (color, label), in the colors of the paper's Figs. 5-7."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` by ``height`` inches whose axes and legends never overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG file, at ``dpi`` pixels per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as the bytes of an SVG file; the same figure gives the same bytes, and text stays text."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "detector", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def files(name: str, figure: Figure, dpi: int = DPI) -> dict[str, bytes]:
    """The figure as ``NAME.png``, for screens, and ``NAME.svg``, for print, by name."""
    return {f"{name}.png": png(figure, dpi), f"{name}.svg": svg(figure)}


def draw_learning_curves(axes: Axes, history: list[dict[str, Any]], *, title: str, kept_epoch: int) -> None:
    """Draws loss and accuracy of both splits over the epochs and marks the epoch whose weights were kept.

    Every line has a label, but the legend is left to the caller, who may want one for several axes.

    Args:
        history: the reports of the epochs (:class:`detector_core.training.loop.EpochReport`) as dicts, at least one.
        kept_epoch: number of the epoch with the lowest validation loss, counted from 1.
    """
    epochs = [row["epoch"] for row in history]
    for column, (color, label) in LEARNING_CURVES.items():
        axes.plot(epochs, [row[column] for row in history], color=color, label=label, marker="o", markersize=3)
    axes.axvline(kept_epoch, color="gray", linestyle=":", label=f"kept: epoch {kept_epoch}")
    axes.set(title=title, xlabel="epoch", ylabel="loss, accuracy", xlim=(0.5, epochs[-1] + 0.5), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
