"""Batches of images from a manifest, the same whatever the number of workers.

An epoch is a permutation drawn from (seed, epoch), cut into *global batches* of ``batch_size``, each cut into
near-equal *micro-batches* of at most ``micro_batch`` images. Worker r of W takes micro-batches r, r + W, ...: what
BatchNorm sees and what each gradient sums over are fixed by the spec, never by W. A worker without a micro-batch in
the last round of a step gets a *filler* of one image, which counts for nothing, so that all ranks take part in the
same collective operations.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from detector_core import labels, storage
from detector_core.config import AugmentSpec, OptimSpec, PreprocessSpec
from detector_core.data.cache import DecodedSplit, load_square
from detector_core.errors import BadConfig, BadData
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels

FILLER = -1
"""Stands for the epoch in a key: the image is loaded but not counted."""
Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class WorkerRank:
    """The rank of this process among the workers of a run."""

    rank: int = 0
    world_size: int = 1


class Batch(NamedTuple):
    """Images of one micro-batch.

    Attributes:
        pixels_BSSC: uint8; empty planes if a network sees features alone.
        target_B: float32, 1 = fake.
        index_B: int64, row in the split.
        broken: paths and reasons of images that were left out.
        feature_BD: float32, the images' frozen features; None without a frozen backbone.
    """

    pixels_BSSC: torch.Tensor
    target_B: torch.Tensor
    index_B: torch.Tensor
    broken: list[str]
    feature_BD: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """Frozen features of a split.

    Attributes:
        feature_NVD: float32; for each row its V versions, the first of the image itself, the others augmented.
        broken: rows without features, and why.
        alone: whether the network sees features only and no pixels.
    """

    feature_NVD: NDArray[np.float32]
    broken: dict[int, str] = field(default_factory=dict)
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """Which images make up which micro-batch of an epoch."""

    images: int
    batch_size: int
    micro_batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch; the last may have a smaller batch."""
        return math.ceil(self.images / self.batch_size)

    def micro_batches(self, step: int) -> int:
        """How many micro-batches make up a step."""
        return math.ceil(self.step_images(step) / self.micro_batch)

    def step_images(self, step: int) -> int:
        """How many images a step sums its gradient over."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def rounds(self, step: int, worker: WorkerRank) -> int:
        """Forward and backward passes that every worker makes in a step."""
        return math.ceil(self.micro_batches(step) / worker.world_size)

    def keys(self, epoch: int, first_step: int, worker: WorkerRank) -> Iterator[list[Key]]:
        """The (epoch, row) keys of each of a worker's micro-batches, from ``first_step`` on."""
        order: NDArray[np.int64] = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        for step in range(first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            parts = np.array_split(batch, self.micro_batches(step))
            for turn in range(self.rounds(step, worker)):
                mine = worker.rank + turn * worker.world_size
                yield [(epoch, int(row)) for row in parts[mine]] if mine < len(parts) else [(FILLER, int(batch[0]))]


def plan(images: int, optim: OptimSpec, seed: int, worker: WorkerRank) -> EpochPlan:
    """The plan of a run's epochs.

    Raises:
        BadConfig: a batch with fewer images than there are workers.
    """
    if min(optim.batch_size, images) < worker.world_size:
        raise BadConfig(
            f"OptimSpec.batch_size is {optim.batch_size} and the split has {images} images: "
            f"{worker.world_size} workers need at least one image each; use fewer workers or a larger batch"
        )
    return EpochPlan(images=images, batch_size=optim.batch_size, micro_batch=optim.micro_batch, seed=seed)


class ImageDataset(Dataset[Any]):
    """The images of one split: decoded, resized to a square and, with ``augment``, augmented.

    A key is (epoch, row); the epoch is part of the augmentation's seed. A broken image yields the reason instead.

    Args:
        decoded: decoded images to use instead of the files.
        features: frozen features; in training one version of each image is drawn per epoch.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        root: str,
        preprocess: PreprocessSpec,
        augment: AugmentSpec | None = None,
        seed: int = 0,
        decoded: DecodedSplit | None = None,
        features: SplitFeatures | None = None,
    ) -> None:
        self.paths = [storage.join(root, path) for path in rows["path"]]
        self.targets = labels.targets(rows["label"])
        self.preprocess = preprocess
        self.augment = Augment(augment) if augment else None
        self.seed = seed
        self.decoded, self.features = decoded, features
        self.side = (augment.crop if augment else 0) or preprocess.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> tuple[Key, Pixels | str]:
        epoch, row = key
        if self.features and self.features.alone:
            return key, self.features.broken.get(row) or np.empty((0, 0, 3), np.uint8)
        pixels = self.decoded.read(row) if self.decoded else load_square(self.paths[row], self.preprocess)
        if self.augment and epoch != FILLER and not isinstance(pixels, str):
            pixels = self.augment(pixels, (self.seed, epoch, row))
        return key, pixels

    def collate(self, samples: list[tuple[Key, Pixels | str]]) -> Batch:
        """Stacks the whole images; lists broken ones with the reason."""
        whole = [(key, pixels) for key, pixels in samples if not isinstance(pixels, str)]
        empty = np.empty((0, self.side, self.side, 3), np.uint8)
        stacked = np.stack([pixels for _, pixels in whole]) if whole else empty
        index = np.array([row for (_, row), _ in whole], dtype=np.int64)
        features = [self.feature(key) for key, _ in whole] if self.features else []
        return Batch(
            pixels_BSSC=torch.from_numpy(stacked),
            target_B=torch.from_numpy(self.targets[index]),
            index_B=torch.from_numpy(index),
            broken=[reason for _, reason in samples if isinstance(reason, str)],
            feature_BD=torch.from_numpy(np.stack(features)) if features else None,
        )

    def feature(self, key: Key) -> NDArray[np.float32]:
        """The frozen feature of an image: of the image itself, or in training of one of its versions."""
        assert self.features is not None
        epoch, row = key
        versions = self.features.feature_NVD.shape[1]
        drawn = np.random.default_rng((self.seed, epoch + 1, row)).integers(versions) if self.augment else 0
        feature_D: NDArray[np.float32] = self.features.feature_NVD[row, drawn]
        return feature_D


@dataclass
class TrainSampler(Sampler[list[Key]]):
    """This worker's micro-batches of the epoch and step last set."""

    plan: EpochPlan
    worker: WorkerRank
    epoch: int = 0
    first_step: int = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """The next iteration starts here."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[Key]]:
        return self.plan.keys(self.epoch, self.first_step, self.worker)

    def __len__(self) -> int:
        return sum(self.plan.rounds(step, self.worker) for step in range(self.first_step, self.plan.steps))


@dataclass
class ValidSampler(Sampler[list[Key]]):
    """This worker's part of a split; over all workers every image comes exactly once."""

    images: int
    micro_batch: int
    worker: WorkerRank = field(default_factory=WorkerRank)

    def __iter__(self) -> Iterator[list[Key]]:
        mine = range(self.worker.rank, self.images, self.worker.world_size)
        for first in range(0, len(mine), self.micro_batch):
            yield [(0, row) for row in mine[first : first + self.micro_batch]]

    def __len__(self) -> int:
        return math.ceil(len(range(self.worker.rank, self.images, self.worker.world_size)) / self.micro_batch)


def loader(
    images: ImageDataset, sampler: Sampler[list[Key]], *, processes: int, pin_memory: bool = False
) -> "DataLoader[Any]":
    """Batches of a sampler's keys, decoded by ``processes`` further processes (0: in this one)."""
    return DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=images.collate,
        num_workers=processes,
        pin_memory=pin_memory,
        prefetch_factor=4 if processes else None,
        persistent_workers=processes > 0,
        # Without one, every pass over the loader would draw from the caller's random stream.
        generator=torch.Generator(),
        # A process forked from one that runs threads (Ray, a GPU) may stop for ever.
        multiprocessing_context="forkserver" if processes else None,
    )


def check_files(rows: pd.DataFrame, root: str, *, remote_sample: int = 16) -> None:
    """That the images of a manifest are still where it says: all of them on disk, a sample on an object store.

    Raises:
        BadData: with the first missing image and how many are missing.
    """
    paths = [storage.join(root, path) for path in rows["path"]]
    if storage.is_uri(root):
        paths = paths[:: max(1, len(paths) // remote_sample)]
    missing = [path for path in paths if not storage.exists(path)]
    if missing:
        raise BadData(
            f"{missing[0]} is missing, and {len(missing) - 1} more of {len(paths)} looked for: "
            f"the images under {root} were moved; put them back or prepare the data set again"
        )
