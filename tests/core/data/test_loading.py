import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core import storage
from detector_core.config import AugmentSpec, OptimSpec, PreprocessSpec
from detector_core.data import manifest
from detector_core.data.loading import (
    FILLER,
    EpochPlan,
    ImageDataset,
    TrainSampler,
    ValidSampler,
    WorkerRank,
    check_files,
    loader,
    plan,
)
from detector_core.errors import BadConfig, BadData, BadManifest
from detector_core.images.augment import Augment

sizes = st.integers(1, 60)


def test_an_epoch_is_the_same_micro_batches_whatever_the_workers() -> None:
    @given(images=sizes, batch=sizes, micro=sizes, workers=st.integers(1, 5), epoch=st.integers(0, 3))
    def check(images: int, batch: int, micro: int, workers: int, epoch: int) -> None:
        whole = EpochPlan(images=images, batch_size=batch, micro_batch=micro, seed=7)
        alone = list(whole.keys(epoch, 0, WorkerRank()))
        assert sorted(row for keys in alone for _, row in keys) == list(range(images))
        assert max(len(keys) for keys in alone) <= micro
        dealt = [list(whole.keys(epoch, 0, WorkerRank(rank=rank, world_size=workers))) for rank in range(workers)]
        assert len({len(share) for share in dealt}) == 1, "every worker makes the same number of passes"
        kept = [keys for turn in zip(*dealt, strict=True) for keys in turn if keys[0][0] != FILLER]
        assert kept == alone

    check()


def test_an_epoch_can_start_at_any_step_and_differs_from_the_next() -> None:
    whole = EpochPlan(images=23, batch_size=5, micro_batch=2, seed=0)
    every = list(whole.keys(0, 0, WorkerRank()))
    skipped = sum(whole.micro_batches(step) for step in range(3))
    assert list(whole.keys(0, 3, WorkerRank())) == every[skipped:]
    assert list(whole.keys(1, 0, WorkerRank())) != every


@given(images=sizes, micro=sizes, workers=st.integers(1, 5))
def test_validation_sees_every_image_once(images: int, micro: int, workers: int) -> None:
    shares = [list(ValidSampler(images, micro, WorkerRank(rank=r, world_size=workers))) for r in range(workers)]
    rows = [row for share in shares for keys in share for _, row in keys]
    assert sorted(rows) == list(range(images))
    assert [len(ValidSampler(images, micro, WorkerRank(rank=r, world_size=workers))) for r in range(workers)] == [
        len(share) for share in shares
    ]


def test_batches_of_a_data_set(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    images = ImageDataset(data.split("train"), data.root, PreprocessSpec(image_size=32), AugmentSpec())
    epoch_plan = EpochPlan(images=len(images), batch_size=20, micro_batch=8, seed=0)
    batches = list(loader(images, TrainSampler(epoch_plan, WorkerRank()), processes=0))
    assert [len(batch.index_B) for batch in batches] == [7, 7, 6, 7, 7, 6, 8]
    assert batches[0].pixels_BSSC.shape == (7, 32, 32, 3)
    rows = data.split("train")
    for batch in batches:
        assert batch.broken == []
        for target, index in zip(batch.target_B.tolist(), batch.index_B.tolist(), strict=True):
            assert target == (rows["label"][index] == "fake")


def test_decoding_processes_change_nothing(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    images = ImageDataset(
        data.split("train"), data.root, PreprocessSpec(image_size=32), AugmentSpec(cutout=1.0), seed=3
    )
    sampler = TrainSampler(EpochPlan(images=48, batch_size=24, micro_batch=12, seed=0), WorkerRank())
    both = [list(loader(images, sampler, processes=processes)) for processes in (0, 2)]
    for one, other in zip(*both, strict=True):
        assert (one.pixels_BSSC == other.pixels_BSSC).all()


def test_broken_images_are_named_and_never_replaced(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("valid")
    torn, gone = (Path(data.root) / path for path in rows["path"][:2])
    torn.write_bytes(torn.read_bytes()[:300])
    gone.unlink()
    images = ImageDataset(rows, data.root, PreprocessSpec(image_size=32))
    batch = next(iter(loader(images, ValidSampler(len(rows), 8), processes=0)))
    assert batch.index_B.tolist() == list(range(2, 8))
    assert len(batch.broken) == 2
    assert str(torn) in batch.broken[0]
    assert str(gone) in batch.broken[1]
    with pytest.raises(BadData, match=r"is missing, and 0 more"):
        check_files(rows, data.root)


def test_on_an_object_store_a_sample_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"path": [f"{number:04}.jpg" for number in range(1000)]})
    asked, gone = [], set()
    monkeypatch.setattr(storage, "exists", lambda where: asked.append(where) or where not in gone)
    check_files(rows, "s3://bucket/faces")
    assert asked == [f"s3://bucket/faces/{number:04}.jpg" for number in range(0, 1000, 62)]
    gone.update(asked[10:])
    with pytest.raises(
        BadData, match=rf"^{asked[10]} is missing, and 6 more of 17 looked for: .*s3://bucket/faces were moved"
    ):
        check_files(rows, "s3://bucket/faces")


def test_too_many_workers_for_a_batch() -> None:
    optim = OptimSpec(learning_rate=0.1, epochs=1, batch_size=2)
    with pytest.raises(BadConfig, match="3 workers need at least one image each"):
        plan(100, optim, 0, WorkerRank(world_size=3))


def test_an_empty_split_is_named(tiny_dataset: Path) -> None:
    with pytest.raises(BadManifest, match="no images in its 'tests' split"):
        manifest.load(str(tiny_dataset)).split("tests")


def test_augmentation_depends_on_the_key_alone() -> None:
    image = np.random.default_rng(0).integers(1, 256, (40, 40, 3), dtype=np.uint8)
    augment = Augment(AugmentSpec(cutout=0.5, rotate_degrees=10, shift=0.1, zoom=0.1))
    first = [augment(image, (0, 0, key)) for key in range(20)]
    again = [augment(image, (0, 0, key)) for key in reversed(range(20))]
    assert all((one == other).all() for one, other in zip(first, reversed(again), strict=True))
    pairs = itertools.combinations(first, 2)
    assert sum((one == other).all() for one, other in pairs) == 0


def test_transforms_draw_independently() -> None:
    """With one seed for all transforms, a mirrored image would always have its patch too."""
    image = np.full((40, 40, 3), 200, np.uint8)
    image[:, :20] = 100
    augment = Augment(AugmentSpec(flip=0.5, cutout=0.5, brightness=0, contrast=0))
    seen = {
        (bool(out[0, 0, 0] == 200 or out[-1, 0, 0] == 200), bool((out == 0).any())) for out in _many(augment, image)
    }
    assert seen == set(itertools.product((False, True), repeat=2))


def test_cutout_is_one_black_square_inside_the_image() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)[:, :40]
    augment = Augment(AugmentSpec(flip=0, brightness=0, contrast=0, cutout=1.0, cutout_size=0.25))
    for out in _many(augment, image):
        black = (out == 0).all(axis=2)
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert black.sum() == 100
        assert len(rows) == len(columns) == 10
        assert (out[~black] == 200).all()


def _many(augment: Augment, image: np.ndarray) -> list[np.ndarray]:
    return [augment(image, (0, 0, key)) for key in range(60)]
