"""detector_core.training.plots: what the images of runs and searches show."""

import dataclasses
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from detector_core import plotting
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.images.decode import decode
from detector_core.images.preprocess import square
from detector_core.training import plots
from detector_core.training.lr_search import COMPLETED, FAILED, STOPPED, Trial

STEP = 32 + plots.SHEET_GAP


def cells(data: Manifest, spec: RunSpec) -> np.ndarray:
    """The images of the contact sheet by row and column; fails unless the gaps between them are white."""
    sheet = np.asarray(Image.open(io.BytesIO(plots.contact_sheet(data, spec))))
    assert sheet.shape == (plots.SHEET_ROWS * STEP, plots.SHEET_COLUMNS * STEP, 3)
    tiles = sheet.reshape(plots.SHEET_ROWS, STEP, plots.SHEET_COLUMNS, STEP, 3).swapaxes(1, 2)
    assert (tiles[:, :, 32:] == 255).all()
    assert (tiles[:, :, :, 32:] == 255).all()
    return tiles[:, :, :32, :32]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are turned into PNG files during the test."""
    drawn: list[Figure] = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda figure, *dpi: drawn.append(figure) or original(figure, *dpi))
    return drawn


def test_learning_curves_show_both_splits_and_mark_the_kept_epoch(figures: list[Figure]) -> None:
    columns = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    values = ((0.9, 0.8, 0.5, 0.6), (0.5, 0.4, 0.7, 0.8), (0.2, 0.6, 0.9, 0.7))
    history: list[dict[str, Any]] = [
        {"epoch": number + 1, **dict(zip(columns, row, strict=True))} for number, row in enumerate(values)
    ]
    with Image.open(io.BytesIO(plots.learning_curves(history, "tiny on faces")["curves.png"])) as image:
        assert (image.format, image.size) == ("PNG", (960, 540))
    (axes,) = figures[0].axes
    *curves, kept = axes.get_lines()
    assert [list(line.get_ydata()) for line in curves] == [[row[name] for row in history] for name in columns]
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in curves)
    assert (axes.get_title(), list(kept.get_xdata())) == ("tiny on faces", [2, 2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training loss", "validation loss", "training accuracy", "validation accuracy", "kept: epoch 2",
    ]  # fmt: skip


def trial(learning_rate: float, status: str, *, val_loss: float | None = None) -> Trial:
    history = [] if val_loss is None else [{"epoch": 1, "val_loss": val_loss, "val_auc": 0.5}]
    return Trial(name="t", learning_rate=learning_rate, status=status, seconds=60.0, history=history)


def test_the_plot_of_a_search_marks_each_trial_by_its_status(figures: list[Figure]) -> None:
    trials = [
        trial(1e-3, COMPLETED, val_loss=0.5),
        trial(2e-4, STOPPED, val_loss=0.6),
        trial(1e-4, FAILED, val_loss=0.7),
        trial(1e-5, FAILED),
    ]
    plots.search_results(trials, "val_loss", "resnet68 on faces", 2e-4)
    (axes,) = figures[0].axes
    points = {
        collection.get_label(): np.asarray(collection.get_offsets()).tolist()  # type: ignore[attr-defined]
        for collection in axes.collections
    }
    assert points == {
        "completed": [[1e-3, 0.5]],
        "stopped early": [[2e-4, 0.6]],
        "failed": [[1e-4, 0.7]],
        "best: 0.001": [[1e-3, 0.5]],
    }
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[2e-4, 2e-4]]
    assert axes.get_ylabel() == "val_loss on validation (lower is better)"


def test_trials_with_the_same_other_settings_are_on_one_line(figures: list[Figure]) -> None:
    trials = [
        replace(trial(rate, COMPLETED, val_loss=loss), settings={"optim.weight_decay": decay})
        for rate, decay, loss in ((1e-3, 0.05, 0.5), (1e-4, 0.05, 0.4), (1e-3, 0, 0.6))
    ]
    plots.search_results([*trials, replace(trials[0], history=[])], "val_loss", "lite0 on faces", None)
    (axes,) = figures[0].axes
    assert {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()} == {
        "weight_decay=0.05": [[1e-4, 0.4], [1e-3, 0.5]],
        "weight_decay=0": [[1e-3, 0.6]],
    }


def test_the_plot_of_a_search_without_any_score_has_empty_axes(figures: list[Figure]) -> None:
    plots.search_results([trial(1e-3, FAILED)], "val_auc", "timm:resnet18 on faces", None)
    (axes,) = figures[0].axes
    assert not axes.collections
    assert axes.get_legend() is None
    assert axes.get_ylabel() == "val_auc on validation (higher is better)"


def test_a_contact_sheet_shows_four_augmentations_of_images_from_the_whole_split(
    tiny_dataset: Path, tiny_spec: RunSpec
) -> None:
    data = manifest.load(str(tiny_dataset))
    paths = data.split("train")["path"][::6]
    assert len(paths) == plots.SHEET_COLUMNS
    plain = tiny_spec.replace(
        dict.fromkeys(("augment.flip", "augment.brightness", "augment.contrast", "augment.cutout"), 0.0)
    )
    expected = [square(decode((Path(data.root) / path).read_bytes()), plain.preprocess) for path in paths]
    assert (cells(data, plain) == np.stack(expected)[None]).all()
    augmented = cells(data, tiny_spec)
    assert (augmented == cells(data, tiny_spec)).all()
    assert (augmented != cells(data, tiny_spec.replace({"seed": 1}))).any()
    assert all((augmented[0, column] != augmented[row, column]).any() for column in range(8) for row in (1, 2, 3))


def test_a_contact_sheet_of_few_images_has_blank_columns(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    few = dataclasses.replace(data, frame=data.split("train").head(3))
    blank = (cells(few, tiny_spec) == 255).all(axis=(2, 3, 4))
    assert (blank == ([False] * 3 + [True] * 5)).all()


def test_the_first_row_of_a_contact_sheet_is_not_augmented(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    rows = data.split("train")
    path = Path(data.root, rows["path"].iloc[0])
    assert np.array_equal(cells(data, tiny_spec)[0, 0], square(decode(path.read_bytes()), tiny_spec.preprocess))


def test_random_crops_are_shown_in_their_own_size(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    cropped = cells(manifest.load(str(tiny_dataset)), tiny_spec.replace({"augment.crop": 20}))[1]
    assert (cropped[:, 20:] == 255).all()
    assert (cropped[:, :, 20:] == 255).all()
    assert not (cropped[:, :20, :20] == 255).all()
