"""``fit``: a generator that trains and yields a report after every step and every epoch.

The same code runs in a single process, under torchrun and under Ray Train: it uses ``torch.distributed`` if the
launcher has set that up. After each report the caller decides whether to save (:meth:`TrainState.save`), show the
report or stop. With the same spec and data the losses agree up to float rounding for any number of workers and wherever
the run was interrupted. They agree bit for bit in the same :func:`environment` with the same number of workers.

Not in this module: learning-rate search (``jobs.tune``) and the test split (:mod:`detector_core.evaluation`).
"""

import dataclasses
import itertools
import math
import resource
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector_core import labels
from detector_core.config import INIT_KEYWORDS
from detector_core.data.cache import open_split
from detector_core.data.epochs import WorkerRank, plan, strata
from detector_core.data.loading import ImageDataset, SplitFeatures, TrainSampler, ValidSampler, loader
from detector_core.data.manifest import Manifest
from detector_core.errors import BadData, TrainingFailed
from detector_core.evaluation import metrics
from detector_core.networks.frozen import FrozenNetwork, trained_state
from detector_core.training.distributed import all_gather
from detector_core.training.features import BackboneFeatures, FeatureReport, frozen_features, standardize
from detector_core.training.optimizer import class_weight, resolve_compute_dtype
from detector_core.training.step import Stepper, StepReport, TrainState, autocast, to_device


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch. Accuracies are fractions.

    Attributes:
        val_auc: ROC AUC on the validation split; None if it has only one class.
        fakes_passed_at_1pct: proportion of fakes that pass as real at the threshold that flags 1% of the reals
            (1 - TPR@FPR=1%, with *fake* as positive); None if there is only one class.
        best: whether this epoch has the lowest validation loss so far.
        seconds, images_per_s: of training alone, without validation.
        peak_memory_bytes: peak memory of this process: device memory on a GPU, otherwise resident memory.
    """

    epoch: int
    epochs: int
    steps: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_auc: float | None
    fakes_passed_at_1pct: float | None
    best: bool
    seconds: float
    images_per_s: float
    peak_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The report as one row of ``metrics.csv``."""
        return dataclasses.asdict(self)


def fit(
    state: TrainState,
    data: Manifest,
    worker: WorkerRank | None = None,
    *,
    processes: int = 0,
    skip_broken: bool = False,
    cache: Path | None = None,
) -> Iterator[StepReport | EpochReport | FeatureReport]:
    """Trains ``state`` to its end and yields a report after each step and each epoch.

    A network with frozen backbones has their features computed first, with a report after each batch of images.

    Every worker calls it and yields the same reports, except for ``seconds`` and memory. The caller's random state in
    torch is left as it was.

    Args:
        processes: additional processes that decode and augment images for this worker.
        skip_broken: leave unreadable images out and list them in ``state.progress.broken_images`` instead of stopping.
        cache: folder on this node for decoded images (:mod:`detector_core.data.cache`); None caches nothing.

    Raises:
        BadData: an image cannot be read; the message names it.
        TrainingFailed: the loss is no longer finite; the weights are those before the step.
    """
    worker = worker or WorkerRank()
    train, valid = yield from _datasets(state, data, worker, cache)
    pin_memory = state.device.type == "cuda"
    rows = data.split("train")
    strata_NK = strata(rows) if state.spec.optim.stratify else None
    epoch_plan = plan(len(train), state.spec.optim, state.spec.seed, worker, strata_NK)
    sampler = TrainSampler(epoch_plan, worker)
    train_loader = loader(train, sampler, processes=processes, pin_memory=pin_memory)
    valid_loader = loader(
        valid,
        ValidSampler(len(valid), state.spec.optim.micro_batch, worker),
        processes=min(processes, 1),
        pin_memory=pin_memory,
    )
    weight = class_weight(state.spec.optim, labels.is_fake(rows["label"]))
    stepper = Stepper(state, epoch_plan, worker, skip_broken, weight)
    progress = state.progress
    if not state.finished and (current := environment(state)) not in progress.environments:
        progress.environments.append(current)
    while not state.finished:
        sampler.set_epoch(progress.epoch, progress.step)
        batches = iter(train_loader)
        while progress.step < epoch_plan.steps:
            yield stepper.step(batches)
        network = state.evaluated if state.average else stepper.network
        targets, logits = _logits(state, network, valid_loader, skip_broken)
        yield _end_epoch(state, epoch_plan.steps, targets, logits, worker)


def _datasets(
    state: TrainState, data: Manifest, worker: WorkerRank, cache: Path | None
) -> Generator[FeatureReport, None, tuple[ImageDataset, ImageDataset]]:
    """The training and validation images, with the features of frozen backbones."""
    spec = state.spec
    train_rows, valid_rows = data.split("train"), data.split("valid")
    features: dict[str, SplitFeatures] = {}
    if isinstance(state.network, FrozenNetwork) and not state.finished:
        compute = BackboneFeatures(state)
        for split, rows in (("train", train_rows), ("valid", valid_rows)):
            features[split] = yield from frozen_features(compute, state, split, rows, data.root, worker, cache)
        new = (state.progress.epoch, state.progress.step) == (0, 0)
        if new and spec.model.init in INIT_KEYWORDS:  # trained heads have the statistics that they were trained with
            standardize(state, features["train"])
    reads_pixels = not any(part.only_features for part in features.values())
    decoded = [
        open_split(cache, data.fingerprint, rows, data.root, spec.preprocess) if cache and reads_pixels else None
        for rows in (train_rows, valid_rows)
    ]
    train = ImageDataset(
        train_rows, data.root, spec.preprocess, spec.augment, spec.seed, decoded[0], features.get("train")
    )
    valid = ImageDataset(valid_rows, data.root, spec.preprocess, decoded=decoded[1], features=features.get("valid"))
    return train, valid


def environment(state: TrainState) -> dict[str, Any]:
    """What decides, together with spec and data, the exact bits of a result: device, compute dtype and CPU threads.

    Threads matter because they decide in which order sums are rounded; in bf16 the losses differ visibly.
    """
    cuda = state.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(state.device) if cuda else state.device.type,
        "compute_dtype": resolve_compute_dtype(state.spec.optim, state.network, state.device),
        "torch_threads": torch.get_num_threads(),
    }


def _logits(
    state: TrainState, network: nn.Module, batches: Any, skip_broken: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets and logits of the whole validation split in the order of its rows, the same on every worker."""
    network.eval()
    module = network.module if isinstance(network, DistributedDataParallel) else network
    rows: list[tuple[int, float, float]] = []
    with torch.inference_mode(), autocast(state):
        for batch in batches:
            if batch.broken and not skip_broken:
                raise BadData(
                    f"broken validation image: {batch.broken[0]}; "
                    "repair it, or leave broken images out with --skip-broken"
                )
            if len(batch.index_B):
                logit_B = module(*to_device(batch, state)[0]).squeeze(1).float().cpu()
                rows += zip(batch.index_B.tolist(), batch.target_B.tolist(), logit_B.tolist(), strict=True)
    gathered = sorted(itertools.chain.from_iterable(all_gather(rows)))
    if not gathered:
        raise BadData("none of the validation images can be read: repair them, or prepare the data set again")
    table = np.array(gathered, dtype=np.float64)
    return table[:, 1], table[:, 2]


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":  # pragma: no cover - needs a CUDA GPU
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _end_epoch(
    state: TrainState, steps: int, targets: NDArray[np.float64], logits: NDArray[np.float64], worker: WorkerRank
) -> EpochReport:
    progress, sums = state.progress, state.progress.sums
    with np.errstate(invalid="ignore"):  # reported below
        val_loss = float(np.mean(np.logaddexp(0, logits) - targets * logits))
    if not math.isfinite(val_loss):
        raise TrainingFailed(
            f"the validation loss is {val_loss} after epoch {progress.epoch + 1}: the run stops and keeps its best "
            f"model; try a lower learning rate (now {state.spec.optim.learning_rate:g})"
        )
    lowest = progress.history[progress.best_epoch]["val_loss"] if progress.best_epoch >= 0 else math.inf
    ranking = metrics.ranking_values(targets > 0.5, logits)
    caught = ranking["fakes_caught_at_0.01"]
    report = EpochReport(
        epoch=progress.epoch + 1,
        epochs=state.spec.optim.epochs,
        steps=steps,
        learning_rate=float(state.optimizer.param_groups[0]["lr"]),
        train_loss=sums["loss"] / max(sums["images"], 1),
        train_accuracy=sums["correct"] / max(sums["images"], 1),
        val_loss=val_loss,
        val_accuracy=float(np.mean((logits > 0) == (targets > 0.5))),
        val_auc=ranking["auc"],
        fakes_passed_at_1pct=None if caught is None else 1 - caught,
        best=val_loss < lowest,
        seconds=sums["seconds"],
        images_per_s=sums["images"] / max(sums["seconds"], 1e-9),
        peak_memory_bytes=_peak_memory(state.device),
    )
    progress.history.append(report.to_dict())
    if report.best:
        progress.best_epoch = progress.epoch
        if worker.rank == 0:
            state.best_weights = {
                name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, value in trained_state(state.evaluated).items()
            }
    progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, dict.fromkeys(sums, 0.0)
    return report
