"""Batches of images from a manifest that are the same for any number of workers.

An epoch is a permutation determined by (seed, epoch), in which the sources and classes may be spread evenly
(``OptimSpec.stratify``). It is divided into *global batches* of ``batch_size``, each of
which is divided into nearly equal *micro-batches* of about ``micro_batch`` images. Of W workers, rank r processes
micro-batches r, r + W, ...: the images over which BatchNorm computes its statistics and over which a gradient is summed
depend on the spec, never on W. BatchNorm cannot normalize a single image, so one that would be left over at the end of
an epoch or a step joins the batch before it. A rank without a micro-batch in the last round of a step gets a *filler*
of one image, which is not counted, so that all ranks take part in the same collective operations.
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
from detector_core.data.sources import SOURCE
from detector_core.errors import BadConfig, BadData
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels

MIN_MICRO_BATCH = 2
"""Fewest images in a micro-batch: the variance over one image, which BatchNorm would divide by, is undefined."""
FILLER = -1
"""In place of the epoch in a key: the image is loaded but not counted."""
Key = tuple[int, int]
"""(epoch, row in the split)"""


@dataclass(frozen=True, kw_only=True)
class WorkerRank:
    """The rank of this process among the ``world_size`` workers of a run."""

    rank: int = 0
    world_size: int = 1


class Batch(NamedTuple):
    """The images of one micro-batch.

    Attributes:
        pixels_BSSC: uint8; of size 0 x 0 if the network uses only features.
        target_B: float32, 1 for fake.
        index_B: int64, rows in the split.
        broken: paths and reasons of images that were left out.
        feature_BD: float32, features from a frozen backbone; None without one.
    """

    pixels_BSSC: torch.Tensor
    target_B: torch.Tensor
    index_B: torch.Tensor
    broken: list[str]
    feature_BD: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """The features that a frozen backbone computes for a split.

    Attributes:
        feature_NVD: float32, V versions of each row: the first of the image itself, the others of augmented copies.
        broken: {row: reason} for rows without features.
        only_features: whether the network uses only features, no pixels.
    """

    feature_NVD: NDArray[np.float32]
    broken: dict[int, str] = field(default_factory=dict)
    only_features: bool = False


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """The division of epochs into global batches and micro-batches, all of MIN_MICRO_BATCH images or more.

    Attributes:
        images: number of images in the split, MIN_MICRO_BATCH or more.
        batch_size: images per optimizer step over all workers, MIN_MICRO_BATCH or more. The last step has the rest, and
            one more if a single image would be left over.
        micro_batch: images per forward and backward pass, MIN_MICRO_BATCH or more; at most one more, for the same
            reason.
        seed: seed of the permutations.
        strata_NK: int64, the stratum of each row at each of K levels, the coarsest first: the rows of each are spread
            evenly over the epoch; None for plain permutations.
    """

    images: int
    batch_size: int
    micro_batch: int
    seed: int
    strata_NK: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        complete, rest = divmod(self.images, self.batch_size)
        return max(1, complete + (rest >= MIN_MICRO_BATCH))

    def micro_batches(self, step: int) -> int:
        """Number of micro-batches in a step."""
        images = self.step_images(step)
        return min(math.ceil(images / self.micro_batch), images // MIN_MICRO_BATCH)

    def step_images(self, step: int) -> int:
        """Number of images in a step, over which its gradient is summed."""
        return self.batch_size if step < self.steps - 1 else self.images - step * self.batch_size

    def rounds(self, step: int, worker: WorkerRank) -> int:
        """Number of forward and backward passes per worker in a step."""
        return math.ceil(self.micro_batches(step) / worker.world_size)

    def keys(self, epoch: int, first_step: int, worker: WorkerRank) -> Iterator[list[Key]]:
        """Yields the keys of each micro-batch of a worker, starting at ``first_step``."""
        order: NDArray[np.int64] = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        if self.strata_NK is not None:
            order = spread_evenly(order, self.strata_NK)
        for step in range(first_step, self.steps):
            start = step * self.batch_size
            batch = order[start : start + self.step_images(step)]
            parts = np.array_split(batch, self.micro_batches(step))
            filler = [(FILLER, int(batch[0]))]
            for number in range(worker.rank, self.rounds(step, worker) * worker.world_size, worker.world_size):
                yield [(epoch, int(row)) for row in parts[number]] if number < len(parts) else filler


def strata(rows: pd.DataFrame) -> NDArray[np.int64]:
    """strata_NK of the rows of a manifest: their source, then their label."""
    return np.stack([pd.factorize(rows[name], sort=True)[0] for name in (SOURCE, "label")], axis=1).astype(np.int64)


def spread_evenly(row_M: NDArray[np.int64], strata_NK: NDArray[np.int64], level: int = 0) -> NDArray[np.int64]:
    """Rows in an order in which each stratum comes at regular intervals; within one, they keep their order.

    Args:
        row_M: some of the N rows, in any order.
        strata_NK: see :class:`EpochPlan`.
        level: the first level to look at.
    """
    if level == strata_NK.shape[1]:
        return row_M
    stratum_M = strata_NK[row_M, level]
    parts = [spread_evenly(row_M[stratum_M == value], strata_NK, level + 1) for value in np.unique(stratum_M)]
    position_M = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in parts])
    return np.concatenate(parts)[np.argsort(position_M, kind="stable")]


def plan(
    images: int, optim: OptimSpec, seed: int, worker: WorkerRank, strata_NK: NDArray[np.int64] | None = None
) -> EpochPlan:
    """The epoch plan of a run.

    Args:
        images: number of images in the training split.
        optim: gives the batch sizes.
        seed: seed of the permutations.
        worker: the rank of this process; only its ``world_size`` is used.
        strata_NK: see :class:`EpochPlan`.

    Raises:
        BadConfig: a batch would have a single image, or there are more workers than images in a batch.
    """
    for name, size in (("batch_size", optim.batch_size), ("micro_batch", optim.micro_batch)):
        if size < MIN_MICRO_BATCH:
            raise BadConfig(f"OptimSpec.{name} is {size}: BatchNorm needs {MIN_MICRO_BATCH} images or more")
    if images < MIN_MICRO_BATCH:
        raise BadConfig(f"the training split has {images} image: BatchNorm needs {MIN_MICRO_BATCH} or more; add images")
    if min(optim.batch_size, images) < worker.world_size:
        raise BadConfig(
            f"OptimSpec.batch_size is {optim.batch_size} and the split has {images} images: "
            f"{worker.world_size} workers need at least one image each; use fewer workers or a larger batch"
        )
    return EpochPlan(
        images=images, batch_size=optim.batch_size, micro_batch=optim.micro_batch, seed=seed, strata_NK=strata_NK
    )


class ImageDataset(Dataset[Any]):
    """The images of one split by key: decoded, resized to a square and, with ``augment``, augmented.

    Augmentation is seeded with (seed, epoch, row). A broken image yields the reason in place of pixels.

    Args:
        rows: the rows of the split, with ``path`` and ``label``.
        root: folder or URI that the paths are relative to.
        preprocess: size and interpolation of the square.
        augment: augmentation in training; None for evaluation.
        seed: seed of the augmentation.
        decoded: cache to read pixels from; None to decode the files.
        features: features from a frozen backbone; in training one version of each image is drawn per epoch.
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
        if self.features and self.features.only_features:
            return key, self.features.broken.get(row) or np.empty((0, 0, 3), np.uint8)
        pixels = self.decoded.read(row) if self.decoded else load_square(self.paths[row], self.preprocess)
        if self.augment and epoch != FILLER and not isinstance(pixels, str):
            pixels = self.augment(pixels, (self.seed, epoch, row))
        return key, pixels

    def collate(self, samples: list[tuple[Key, Pixels | str]]) -> Batch:
        """Stacks the intact images into a batch that lists the reasons of the broken ones."""
        intact = [(key, pixels) for key, pixels in samples if not isinstance(pixels, str)]
        empty = np.empty((0, self.side, self.side, 3), np.uint8)
        stacked = np.stack([pixels for _, pixels in intact]) if intact else empty
        index = np.array([row for (_, row), _ in intact], dtype=np.int64)
        features = [self.feature(key) for key, _ in intact] if self.features else []
        return Batch(
            pixels_BSSC=torch.from_numpy(stacked),
            target_B=torch.from_numpy(self.targets[index]),
            index_B=torch.from_numpy(index),
            broken=[reason for _, reason in samples if isinstance(reason, str)],
            feature_BD=torch.from_numpy(np.stack(features)) if features else None,
        )

    def feature(self, key: Key) -> NDArray[np.float32]:
        """The feature_D of an image: of the image itself or, in training, of a version drawn for the epoch."""
        assert self.features is not None
        epoch, row = key
        versions = self.features.feature_NVD.shape[1]
        drawn = np.random.default_rng((self.seed, epoch + 1, row)).integers(versions) if self.augment else 0
        feature_D: NDArray[np.float32] = self.features.feature_NVD[row, drawn]
        return feature_D


@dataclass
class TrainSampler(Sampler[list[Key]]):
    """A worker's micro-batches of the epoch that was set last."""

    plan: EpochPlan
    worker: WorkerRank
    epoch: int = 0
    first_step: int = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Sets the epoch and first step of the next iteration."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[Key]]:
        return self.plan.keys(self.epoch, self.first_step, self.worker)

    def __len__(self) -> int:
        return sum(self.plan.rounds(step, self.worker) for step in range(self.first_step, self.plan.steps))


@dataclass
class ValidSampler(Sampler[list[Key]]):
    """A worker's part of a split; over all workers, every image comes exactly once."""

    images: int
    micro_batch: int
    worker: WorkerRank = field(default_factory=WorkerRank)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self._rows()
        for first in range(0, len(rows), self.micro_batch):
            yield [(0, row) for row in rows[first : first + self.micro_batch]]

    def __len__(self) -> int:
        return math.ceil(len(self._rows()) / self.micro_batch)

    def _rows(self) -> range:
        return range(self.worker.rank, self.images, self.worker.world_size)


def loader(
    images: ImageDataset, sampler: Sampler[list[Key]], *, processes: int, pin_memory: bool = False
) -> "DataLoader[Any]":
    """A loader of a sampler's batches that decodes in ``processes`` child processes, or in this process if 0."""
    return DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=images.collate,
        num_workers=processes,
        pin_memory=pin_memory,
        prefetch_factor=4 if processes else None,
        persistent_workers=processes > 0,
        # Without a generator, every pass over the loader would draw from the caller's random stream.
        generator=torch.Generator(),
        # A process forked from one with threads (Ray, CUDA) may hang forever.
        multiprocessing_context="forkserver" if processes else None,
    )


def check_files(rows: pd.DataFrame, root: str, *, remote_sample: int = 16) -> None:
    """Checks that the images of a manifest still exist: all of them on disk, a sample in an object store.

    Args:
        rows: rows of the manifest, with ``path``.
        root: folder or URI that the paths are relative to.
        remote_sample: approximate number of images to check in an object store.

    Raises:
        BadData: images are missing; names the first one and how many there are.
    """
    paths = [storage.join(root, path) for path in rows["path"]]
    if storage.is_uri(root):
        paths = paths[:: max(1, len(paths) // remote_sample)]
    missing = [path for path in paths if not storage.exists(path)]
    if missing:
        raise BadData(
            f"{missing[0]} is missing, and {len(missing) - 1} more of {len(paths)} checked: "
            f"the images under {root} were moved or deleted; put them back or prepare the data set again"
        )
