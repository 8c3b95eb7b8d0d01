"""Batches of images from a manifest that are the same for any number of workers.

Not in this module: which images an epoch has in which order (:mod:`detector_core.data.epochs`).
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
from detector_core.config import AugmentSpec, PreprocessSpec
from detector_core.data.cache import DecodedSplit, load_square
from detector_core.data.epochs import FILLER, EpochPlan, Key, WorkerRank
from detector_core.errors import BadData
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels


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
