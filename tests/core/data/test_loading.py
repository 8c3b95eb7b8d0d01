"""detector_core.data.loading: batches that are the same for any number of workers."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector_core import storage
from detector_core.config import AugmentSpec, OptimSpec, PreprocessSpec
from detector_core.data import manifest
from detector_core.data.epochs import FILLER, MIN_MICRO_BATCH, EpochPlan, WorkerRank, plan
from detector_core.data.loading import ImageDataset, TrainSampler, ValidSampler, check_files, loader
from detector_core.errors import BadConfig, BadData, BadManifest

sizes = st.integers(1, 60)
trainable = st.integers(MIN_MICRO_BATCH, 60)
workers_and_epochs = {"workers": st.integers(1, 5), "epoch": st.integers(0, 3)}


@given(images=trainable, batch=trainable, micro=trainable, **workers_and_epochs)
@example(images=56, batch=55, micro=55, workers=1, epoch=0)  # one image is left over at the end of the epoch
@example(images=6, batch=3, micro=2, workers=2, epoch=0)  # one image is left over in each step
def test_an_epoch_has_the_same_micro_batches_for_any_number_of_workers(
    images: int, batch: int, micro: int, workers: int, epoch: int
) -> None:
    epoch_plan = EpochPlan(images=images, batch_size=batch, micro_batch=micro, seed=7)
    expected = list(epoch_plan.keys(epoch, 0, WorkerRank()))
    assert sorted(row for keys in expected for _, row in keys) == list(range(images))
    assert min(len(keys) for keys in expected) >= MIN_MICRO_BATCH
    assert max(len(keys) for keys in expected) <= micro + 1
    assert len(expected) == sum(epoch_plan.micro_batches(step) for step in range(epoch_plan.steps))
    assert sum(epoch_plan.step_images(step) for step in range(epoch_plan.steps)) == images
    per_worker = [list(epoch_plan.keys(epoch, 0, WorkerRank(rank=r, world_size=workers))) for r in range(workers)]
    rounds = zip(*per_worker, strict=True)  # every worker makes the same number of passes
    assert [keys for keys_of_round in rounds for keys in keys_of_round if keys[0][0] != FILLER] == expected


def test_an_epoch_can_start_at_any_step_and_differs_from_the_next_epoch() -> None:
    epoch_plan = EpochPlan(images=23, batch_size=5, micro_batch=2, seed=0)
    complete = list(epoch_plan.keys(0, 0, WorkerRank()))
    skipped = sum(epoch_plan.micro_batches(step) for step in range(3))
    assert list(epoch_plan.keys(0, 3, WorkerRank())) == complete[skipped:]
    assert list(epoch_plan.keys(1, 0, WorkerRank())) != complete


@given(images=sizes, micro=sizes, workers=st.integers(1, 5))
def test_validation_uses_every_image_once(images: int, micro: int, workers: int) -> None:
    samplers = [ValidSampler(images, micro, WorkerRank(rank=r, world_size=workers)) for r in range(workers)]
    batches = [list(sampler) for sampler in samplers]
    rows = [row for of_worker in batches for keys in of_worker for _, row in keys]
    assert sorted(rows) == list(range(images))
    assert [len(sampler) for sampler in samplers] == [len(of_worker) for of_worker in batches]


def test_batches_have_the_planned_sizes_and_their_images_labels(tiny_dataset: Path) -> None:
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


def test_the_number_of_decoding_processes_does_not_change_the_batches(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    images = ImageDataset(
        data.split("train"), data.root, PreprocessSpec(image_size=32), AugmentSpec(cutout=1.0), seed=3
    )
    sampler = TrainSampler(EpochPlan(images=48, batch_size=24, micro_batch=12, seed=0), WorkerRank())
    batches = [list(loader(images, sampler, processes=processes)) for processes in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert (one.pixels_BSSC == other.pixels_BSSC).all()


def test_broken_images_are_reported_and_never_replaced(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("valid")
    truncated, deleted = (Path(data.root) / path for path in rows["path"][:2])
    truncated.write_bytes(truncated.read_bytes()[:300])
    deleted.unlink()
    images = ImageDataset(rows, data.root, PreprocessSpec(image_size=32))
    batch = next(iter(loader(images, ValidSampler(len(rows), 8), processes=0)))
    assert batch.index_B.tolist() == list(range(2, 8))
    assert len(batch.broken) == 2
    assert str(truncated) in batch.broken[0]
    assert str(deleted) in batch.broken[1]
    with pytest.raises(BadData, match=r"is missing, and 0 more"):
        check_files(rows, data.root)


def test_a_sample_of_the_files_is_checked_in_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"path": [f"{number:04}.jpg" for number in range(1000)]})
    checked, deleted = [], set()
    monkeypatch.setattr(storage, "exists", lambda where: checked.append(where) or where not in deleted)
    check_files(rows, "s3://bucket/faces")
    assert checked == [f"s3://bucket/faces/{number:04}.jpg" for number in range(0, 1000, 62)]
    deleted.update(checked[10:])
    with pytest.raises(
        BadData, match=rf"^{checked[10]} is missing, and 6 more of 17 checked: .*s3://bucket/faces were moved"
    ):
        check_files(rows, "s3://bucket/faces")


def test_more_workers_than_images_in_a_batch_are_rejected() -> None:
    optim = OptimSpec(learning_rate=0.1, epochs=1, batch_size=2)
    with pytest.raises(BadConfig, match="3 workers need at least one image each"):
        plan(100, optim, 0, WorkerRank(world_size=3))


@pytest.mark.parametrize(
    ("images", "batch", "micro", "message"),
    [
        (100, 1, 50, "batch_size is 1"),
        (100, 20, 1, "micro_batch is 1"),
        (1, 20, 50, "the training split has 1 image"),
    ],
)
def test_a_batch_of_one_image_is_rejected_before_batchnorm_does(
    images: int, batch: int, micro: int, message: str
) -> None:
    optim = OptimSpec(learning_rate=0.1, epochs=1, batch_size=batch, micro_batch=micro)
    with pytest.raises(BadConfig, match=f"{message}: BatchNorm needs 2"):
        plan(images, optim, 0, WorkerRank())


def test_the_error_for_an_empty_split_names_it(tiny_dataset: Path) -> None:
    with pytest.raises(BadManifest, match="no images in its 'tests' split"):
        manifest.load(str(tiny_dataset)).split("tests")
