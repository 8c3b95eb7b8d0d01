"""detector_core.training.plots: what is drawn of a run."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.images.preprocess import decode, square
from detector_core.training import plots

STEP = 32 + plots.SHEET_GAP


def cells(data: Manifest, spec: RunSpec) -> np.ndarray:
    """The images of the sheet by row and column; fails where something is between them."""
    sheet = np.asarray(Image.open(io.BytesIO(plots.contact_sheet(data, spec))))
    assert sheet.shape == (plots.SHEET_ROWS * STEP, plots.SHEET_COLUMNS * STEP, 3)
    tiles = sheet.reshape(plots.SHEET_ROWS, STEP, plots.SHEET_COLUMNS, STEP, 3).swapaxes(1, 2)
    assert (tiles[:, :, 32:] == 255).all()
    assert (tiles[:, :, :, 32:] == 255).all()
    return tiles[:, :, :32, :32]


def test_the_curves_of_both_splits_are_drawn_and_the_epoch_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    values = ((0.9, 0.8, 0.5, 0.6), (0.5, 0.4, 0.7, 0.8), (0.2, 0.6, 0.9, 0.7))
    history: list[dict[str, Any]] = [
        {"epoch": number + 1, **dict(zip(columns, row, strict=True))} for number, row in enumerate(values)
    ]
    drawn: list[Figure] = []
    really = plots._png
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or really(figure))
    with Image.open(io.BytesIO(plots.learning_curves(history, "tiny on faces"))) as image:
        assert (image.format, image.size) == ("PNG", (960, 540))
    (axes,) = drawn[0].axes
    *curves, kept = axes.get_lines()
    assert [list(line.get_ydata()) for line in curves] == [[row[name] for row in history] for name in columns]
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in curves)
    assert (axes.get_title(), list(kept.get_xdata())) == ("tiny on faces", [2, 2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training loss", "validation loss", "training accuracy", "validation accuracy", "kept: epoch 2",
    ]  # fmt: skip


def test_a_sheet_shows_four_draws_of_images_from_the_whole_split(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    paths = data.split("train")["path"][::6]
    assert len(paths) == plots.SHEET_COLUMNS
    still = tiny_spec.replace(
        dict.fromkeys(("augment.flip", "augment.brightness", "augment.contrast", "augment.cutout"), 0.0)
    )
    expected = [square(decode((Path(data.root) / path).read_bytes()), still.preprocess) for path in paths]
    assert (cells(data, still) == np.stack(expected)[None]).all()
    changed = cells(data, tiny_spec)
    assert (changed == cells(data, tiny_spec)).all()
    assert (changed != cells(data, tiny_spec.replace({"seed": 1}))).any()
    assert all((changed[0, column] != changed[row, column]).any() for column in range(8) for row in (1, 2, 3))


def test_a_sheet_of_few_images_has_white_places(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    few = dataclasses.replace(data, frame=data.split("train").head(3))
    blank = (cells(few, tiny_spec) == 255).all(axis=(2, 3, 4))
    assert (blank == ([False] * 3 + [True] * 5)).all()
