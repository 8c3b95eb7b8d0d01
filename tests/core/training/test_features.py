"""detector_core.training.features: computed once, the same for any number of workers, cached by image checksum."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from detector_core.config import AugmentSpec, PreprocessSpec
from detector_core.data import manifest
from detector_core.data.loading import SplitFeatures
from detector_core.training import features
from detector_core.training.features import FeatureExtractor, FeatureReport, compute_features

WIDTH = 6


class Counter:
    """Channel means and deviations as features; counts the images that it is given."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.images += len(x_BCHW)
        return torch.cat([x_BCHW.mean((2, 3)), x_BCHW.std((2, 3))], dim=1)


def extractor(compute: Any, **changes: Any) -> FeatureExtractor:
    values: dict[str, Any] = {
        "compute": compute,
        "backbones": ("counter", "0" * 64),
        "preprocess": PreprocessSpec(image_size=32),
        "augment": AugmentSpec(delivery=1.0),
        "seed": 0,
        "versions": 2,
        "compute_dtype": "fp32 on cpu",
        "device": torch.device("cpu"),
    }
    return FeatureExtractor(**(values | changes))


def run(
    source: FeatureExtractor, rows: pd.DataFrame, root: str, **options: Any
) -> tuple[SplitFeatures, list[FeatureReport]]:
    """What the generator returns, and the reports that it yields."""
    reports, steps = [], compute_features(source, rows, root, "train", **options)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as ended:
            return ended.value, reports


@pytest.fixture
def split(tiny_dataset: Path) -> tuple[pd.DataFrame, str]:
    data = manifest.load(str(tiny_dataset))
    return data.split("train"), data.root


def test_the_first_version_is_the_image_itself(split: tuple[pd.DataFrame, str]) -> None:
    rows, root = split
    found, reports = run(extractor(Counter()), rows, root)
    plain, _ = run(extractor(Counter(), versions=1), rows, root)
    assert found.feature_NVD.shape == (len(rows), 2, WIDTH)
    assert np.array_equal(found.feature_NVD[:, :1], plain.feature_NVD)
    assert not np.array_equal(found.feature_NVD[:, 0], found.feature_NVD[:, 1])
    assert [report.done for report in reports] == [32, 64, 96]
    assert reports[-1].images == 2 * len(rows)


def test_nothing_is_computed_twice(split: tuple[pd.DataFrame, str], tmp_path: Path) -> None:
    rows, root = split
    first, second = Counter(), Counter()
    before, _ = run(extractor(first), rows, root, cache=tmp_path)
    again, reports = run(extractor(second), rows.iloc[::-1], root, cache=tmp_path)
    assert (first.images, second.images, reports) == (2 * len(rows), 0, [])
    assert np.array_equal(before.feature_NVD, again.feature_NVD[::-1])
    third, twice = Counter(), rows.iloc[[0, 1, 0, 2, 1]]  # as in a round of relearning, where tags are repeated
    repeated, _ = run(extractor(third), twice, root)
    assert third.images == 2 * 3
    assert np.array_equal(repeated.feature_NVD, before.feature_NVD[[0, 1, 0, 2, 1]])


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"seed": 1}, 1),
        ({"augment": AugmentSpec(delivery=0.5)}, 1),
        ({"backbones": ("counter", "1" * 64)}, 2),
        ({"compute_dtype": "bf16 on cpu"}, 2),
        ({"preprocess": PreprocessSpec(image_size=16)}, 2),
    ],
)
def test_what_shapes_a_feature_selects_its_folder(
    split: tuple[pd.DataFrame, str], tmp_path: Path, changes: dict[str, Any], computed: int
) -> None:
    rows, root = split
    run(extractor(Counter()), rows, root, cache=tmp_path)
    counter = Counter()
    run(extractor(counter, **changes), rows, root, cache=tmp_path)
    assert counter.images == computed * len(rows)


def test_a_run_that_dies_continues(
    split: tuple[pd.DataFrame, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, root = split
    monkeypatch.setattr(features, "SAVE_EVERY", 32)
    interrupted = compute_features(extractor(Counter()), rows, root, "train", cache=tmp_path)
    next(interrupted)
    interrupted.close()
    counter = Counter()
    run(extractor(counter), rows, root, cache=tmp_path)
    assert counter.images == 2 * len(rows) - 32


def test_each_worker_computes_its_part(split: tuple[pd.DataFrame, str], tmp_path: Path) -> None:
    rows, root = split
    whole, _ = run(extractor(Counter()), rows, root)
    counters = [Counter(), Counter(), Counter()]
    parts = [
        run(extractor(counter), rows, root, rank=rank, world_size=3, cache=tmp_path)[0]
        for rank, counter in enumerate(counters)
    ]
    assert [counter.images for counter in counters] == [32, 32, 32]
    assert np.array_equal(sum(part.feature_NVD for part in parts), whole.feature_NVD)


def test_a_broken_image_has_a_reason_and_no_feature(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("train")
    Path(data.root, rows["path"].iloc[3]).write_bytes(b"no image")
    found, _ = run(extractor(Counter()), rows, data.root)
    assert set(found.broken) == {3}
    assert rows["path"].iloc[3] in found.broken[3]
    assert not found.feature_NVD[3].any()
