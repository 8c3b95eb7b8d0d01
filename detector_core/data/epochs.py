"""The order of the images of an epoch and their division into batches, the same for any number of workers.

An epoch is a permutation determined by (seed, epoch), in which the sources and classes may be spread evenly
(``OptimSpec.stratify``). It is divided into *global batches* of ``batch_size``, each of which is divided into nearly
equal *micro-batches* of about ``micro_batch`` images. Of W workers, rank r processes micro-batches r, r + W, ...: the
images over which BatchNorm computes its statistics and over which a gradient is summed depend on the spec, never on W.
BatchNorm cannot normalize a single image, so one that would be left over at the end of an epoch or a step joins the
batch before it. A rank without a micro-batch in the last round of a step gets a *filler* of one image, which is not
counted, so that all ranks take part in the same collective operations.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core.config import OptimSpec
from detector_core.data.sources import SOURCE
from detector_core.errors import BadConfig

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
