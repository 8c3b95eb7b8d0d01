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
from detector_core.data.cache import Decoded, read_square
from detector_core.errors import BadConfig, BadData
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels

FILLER = -1
"""In place of the epoch in a key: load the image, but count it for nothing."""
Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands among the workers of a run: rank r of W."""

    rank: int = 0
    workers: int = 1


class Batch(NamedTuple):
    """Images of one micro-batch.

    ``pixels_BSSC`` uint8, ``target_B`` float32 (1 = fake), ``index_B`` int64 (row in the split), ``broken`` paths of
    images that were left out.
    """

    pixels_BSSC: torch.Tensor
    target_B: torch.Tensor
    index_B: torch.Tensor
    broken: list[str]


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

    def rounds(self, step: int, place: Place) -> int:
        """Forward and backward passes that every worker makes in a step."""
        return math.ceil(self.micro_batches(step) / place.workers)

    def keys(self, epoch: int, first_step: int, place: Place) -> Iterator[list[Key]]:
        """The (epoch, row) keys of each of a worker's micro-batches, from ``first_step`` on."""
        order: NDArray[np.int64] = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        for step in range(first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            parts = np.array_split(batch, self.micro_batches(step))
            for turn in range(self.rounds(step, place)):
                mine = place.rank + turn * place.workers
                yield [(epoch, int(row)) for row in parts[mine]] if mine < len(parts) else [(FILLER, int(batch[0]))]


def plan(images: int, optim: OptimSpec, seed: int, place: Place) -> EpochPlan:
    """The plan of a run's epochs.

    Raises:
        BadConfig: a batch with fewer images than there are workers.
    """
    if min(optim.batch_size, images) < place.workers:
        raise BadConfig(
            f"OptimSpec.batch_size is {optim.batch_size} and the split has {images} images: "
            f"{place.workers} workers need at least one image each; use fewer workers or a larger batch"
        )
    return EpochPlan(images=images, batch_size=optim.batch_size, micro_batch=optim.micro_batch, seed=seed)


class ImageDataset(Dataset[Any]):
    """The images of one split, decoded, squared and (with ``augment``) changed; a reason in place of a broken one.

    A key is (epoch, row): the epoch is part of the augmentation's seed. With ``decoded`` nothing is read but that.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        root: str,
        preprocess: PreprocessSpec,
        augment: AugmentSpec | None = None,
        seed: int = 0,
        decoded: Decoded | None = None,
    ) -> None:
        self.paths = [storage.join(root, path) for path in rows["path"]]
        self.targets = labels.targets(rows["label"])
        self.preprocess = preprocess
        self.augment = Augment(augment) if augment else None
        self.seed = seed
        self.decoded = decoded

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> tuple[Key, Pixels | str]:
        epoch, row = key
        pixels = self.decoded.read(row) if self.decoded else read_square(self.paths[row], self.preprocess)
        if self.augment and epoch != FILLER and not isinstance(pixels, str):
            pixels = self.augment(pixels, (self.seed, epoch, row))
        return key, pixels

    def collate(self, samples: list[tuple[Key, Pixels | str]]) -> Batch:
        """Whole images stacked; broken ones listed with the reason."""
        whole = [(row, pixels) for (_, row), pixels in samples if not isinstance(pixels, str)]
        size = self.preprocess.image_size
        stacked = np.stack([pixels for _, pixels in whole]) if whole else np.empty((0, size, size, 3), np.uint8)
        index = np.array([row for row, _ in whole], dtype=np.int64)
        return Batch(
            pixels_BSSC=torch.from_numpy(stacked),
            target_B=torch.from_numpy(self.targets[index]),
            index_B=torch.from_numpy(index),
            broken=[reason for _, reason in samples if isinstance(reason, str)],
        )


@dataclass
class TrainSampler(Sampler[list[Key]]):
    """This worker's micro-batches of the epoch and step last set."""

    plan: EpochPlan
    place: Place
    epoch: int = 0
    first_step: int = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """The next iteration starts here."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[Key]]:
        return self.plan.keys(self.epoch, self.first_step, self.place)

    def __len__(self) -> int:
        return sum(self.plan.rounds(step, self.place) for step in range(self.first_step, self.plan.steps))


@dataclass
class ValidSampler(Sampler[list[Key]]):
    """This worker's share of a split, every image exactly once over all workers."""

    images: int
    micro_batch: int
    place: Place = field(default_factory=Place)

    def __iter__(self) -> Iterator[list[Key]]:
        mine = range(self.place.rank, self.images, self.place.workers)
        for first in range(0, len(mine), self.micro_batch):
            yield [(0, row) for row in mine[first : first + self.micro_batch]]

    def __len__(self) -> int:
        return math.ceil(len(range(self.place.rank, self.images, self.place.workers)) / self.micro_batch)


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
