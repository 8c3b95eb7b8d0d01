"""detector_core.data.cache: the same batches as without it; filled once, completely or not at all."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from detector_core.config import PreprocessSpec, RunSpec
from detector_core.data import cache, manifest
from detector_core.data.loading import ImageDataset
from detector_core.errors import BadConfig, BadData
from detector_core.training.loop import fit
from detector_core.training.step import StepReport, TrainState

PREPROCESS = PreprocessSpec(image_size=24)


def open_train(dataset: str, folder: str) -> int:
    """Opens the cache of the training split; returns the inode of its pixels. Runs in other processes, too."""
    data = manifest.load(dataset)
    cache.open_split(Path(folder), data.fingerprint, data.split("train"), data.root, PREPROCESS)
    return next(Path(folder).rglob(cache.PIXELS)).stat().st_ino


def losses(spec: RunSpec, dataset: Path, folder: Path | None) -> list[float]:
    """Every training and validation loss of a run with a cache in ``folder``, or without one."""
    data = manifest.load(str(dataset))
    state = TrainState(spec, data.fingerprint)
    reports = fit(state, data, cache=folder)
    return [report.loss if isinstance(report, StepReport) else report.val_loss for report in reports]


def test_every_image_is_the_same_as_without_the_cache(tiny_dataset: Path, tmp_path: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    rows = data.split("train")
    decoded = cache.open_split(tmp_path, data.fingerprint, rows, data.root, PREPROCESS)
    plain, cached = (ImageDataset(rows, data.root, PREPROCESS, decoded=source) for source in (None, decoded))
    for row in range(len(rows)):
        assert np.array_equal(plain[0, row][1], cached[0, row][1])


def test_training_with_a_full_cache_gives_the_same_losses_without_the_files(
    writable_dataset: Path, tiny_spec: RunSpec, tmp_path: Path
) -> None:
    expected = losses(tiny_spec, writable_dataset, None)
    assert losses(tiny_spec, writable_dataset, tmp_path / "cache") == expected
    shutil.rmtree(manifest.load(str(writable_dataset)).root)
    assert losses(tiny_spec, writable_dataset, tmp_path / "cache") == expected


def test_processes_that_start_together_fill_the_cache_once(tiny_dataset: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        inodes = set(pool.map(open_train, [str(tiny_dataset)] * 4, [str(tmp_path)] * 4))
    assert len(inodes) == 1


@pytest.mark.parametrize(
    ("change", "shared"),
    [({"image_size": 25}, False), ({"interpolation": "bicubic"}, False), ({"mean": (0.5, 0.5, 0.5)}, True)],
)
def test_settings_that_affect_the_pixels_need_another_cache(
    tiny_dataset: Path, tmp_path: Path, change: dict[str, object], shared: bool
) -> None:
    data = manifest.load(str(tiny_dataset))
    other = PreprocessSpec.from_dict({**PREPROCESS.to_dict(), **change})
    for preprocess in (PREPROCESS, other):
        cache.open_split(tmp_path, data.fingerprint, data.split("valid"), data.root, preprocess)
    assert len(list(tmp_path.rglob(cache.PIXELS))) == (1 if shared else 2)


def test_training_names_a_broken_image_in_the_cache(writable_dataset: Path, tiny_spec: RunSpec, tmp_path: Path) -> None:
    data = manifest.load(str(writable_dataset))
    broken = Path(data.root) / data.split("train")["path"].iloc[3]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(BadData, match=broken.name):
        losses(tiny_spec, writable_dataset, tmp_path)


def test_a_full_disk_is_reported_before_anything_is_written(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SPARE_BYTES", 2**60)
    with pytest.raises(BadConfig, match=r"--cache .* GiB are free"):
        open_train(str(tiny_dataset), str(tmp_path))
    assert not list(tmp_path.rglob(cache.PIXELS))


def test_an_interrupted_fill_leaves_no_cache(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache, "load_square", fail)
        with pytest.raises(KeyboardInterrupt):
            open_train(str(tiny_dataset), str(tmp_path))
    assert not list(tmp_path.rglob(cache.PIXELS))
    assert open_train(str(tiny_dataset), str(tmp_path))
