"""The state of a training run, and one optimizer step that changes it.

A step sums the gradient over all micro-batches of the global batch, whichever worker computes them. See
:mod:`detector_core.data.epochs` for how they are distributed over workers, and
:mod:`detector_core.training.distributed` for BatchNorm.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detector_core.config import RunSpec
from detector_core.data.epochs import MIN_MICRO_BATCH, EpochPlan, WorkerRank
from detector_core.data.loading import Batch
from detector_core.errors import BadData, BrokenArtifact, TrainingFailed
from detector_core.images.preprocess import normalize
from detector_core.networks import factory
from detector_core.networks.frozen import FrozenNetwork, load_trained_state, trained_state
from detector_core.training import checkpoint
from detector_core.training.checkpoint import Progress
from detector_core.training.distributed import BatchNormStatistics
from detector_core.training.freezing import freeze
from detector_core.training.optimizer import ClassWeight, create_optimizer, learning_rate, resolve_compute_dtype


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One optimizer step: ``loss`` is the mean over the global batch, ``seconds`` the time that this process took."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images: int
    seconds: float


class TrainState:
    """A run between two steps: network, optimizer, progress and the best weights so far."""

    def __init__(self, spec: RunSpec, fingerprint: str, device: str = "cpu", *, pretrained: bool = True) -> None:
        """Creates the state before the first step.

        Args:
            fingerprint: of the data set.
            pretrained: False leaves the weights random, for those of a checkpoint to be loaded next.

        Raises:
            WeightsUnavailable: the pretrained weights cannot be downloaded or read.
            BadConfig: the network does not accept images of this size, or this dropout.
        """
        factory.check(spec)
        self.spec = spec
        self.device = torch.device(device)
        with seeded(spec.seed):
            network = factory.build(spec.model, pretrained=pretrained)
        self.frozen_norms = freeze(network, spec.optim.freeze)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = create_optimizer(self.network, spec)
        self.average: AveragedModel | None = None
        if spec.optim.ema:
            average = get_ema_multi_avg_fn(spec.optim.ema)
            self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.progress = Progress(spec=spec.to_dict(), fingerprint=fingerprint)
        self.best_weights: dict[str, torch.Tensor] | None = None

    def save(self, folder: Path) -> None:
        """Writes a checkpoint into an empty local folder (see :mod:`detector_core.training.checkpoint`)."""
        state: dict[str, Any] = {"network": trained_state(self.network), "optimizer": self.optimizer.state_dict()}
        if self.average:
            state |= {"average": trained_state(self.average.module), "averaged": self.average.n_averaged}
        checkpoint.save(folder, self.progress, state, self.best_weights)

    @classmethod
    def load(cls, folder: Path, spec: RunSpec, fingerprint: str, device: str = "cpu") -> "TrainState":
        """Loads the state of a run from a checkpoint.

        Raises:
            BrokenArtifact: the checkpoint is damaged, or was saved by a run with another spec or data set.
        """
        progress = checkpoint.read(folder)
        for name, saved, current in (
            ("spec", RunSpec.from_dict(progress.spec).to_dict(), spec.to_dict()),
            ("data set", progress.fingerprint, fingerprint),
        ):
            if saved != current:
                raise BrokenArtifact(f"{folder} was saved by a run with another {name}: use another --name")
        state = cls(spec, fingerprint, device, pretrained=False)
        saved_state = checkpoint.read_state(folder)
        load_trained_state(state.network, saved_state["network"])
        state.optimizer.load_state_dict(saved_state["optimizer"])
        if state.average:
            load_trained_state(state.average.module, saved_state["average"])
            state.average.n_averaged.copy_(saved_state["averaged"])
        state.progress = progress
        state.best_weights = checkpoint.read_best(folder)
        return state

    def train_mode(self, network: nn.Module) -> None:
        """Puts a network, perhaps wrapped, into training mode, all but its frozen BatchNorm layers."""
        network.train()
        for norm in self.frozen_norms:
            norm.eval()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the moving average of the weights, if the spec asks for one."""
        return self.average.module if self.average else self.network

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or ``patience`` epochs in a row did not lower the validation loss."""
        epochs, patience = self.progress.epoch, self.spec.optim.patience
        out_of_patience = patience > 0 and epochs - 1 - self.progress.best_epoch >= patience
        return epochs >= self.spec.optim.epochs or out_of_patience


class Stepper:
    """Makes optimizer steps: micro-batches, gradient accumulation, all-reduce."""

    def __init__(
        self,
        state: TrainState,
        epoch_plan: EpochPlan,
        worker: WorkerRank,
        skip_broken: bool,
        class_weight: ClassWeight = (1.0, 1.0),
    ) -> None:
        self.state, self.plan, self.worker, self.skip_broken = state, epoch_plan, worker, skip_broken
        self.class_weight = class_weight
        self.statistics = BatchNormStatistics(state.network)
        network = torch.compile(state.network) if state.spec.optim.compile else state.network
        self.network: nn.Module = network  # type: ignore[assignment]
        if worker.world_size > 1:
            # The only buffers are those of BatchNorm, which BatchNormStatistics keeps equal on all workers.
            self.network = DistributedDataParallel(
                self.network, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        self.autocast = autocast(state)

    def step(self, batches: Iterator[Batch]) -> StepReport:
        """Makes the next step of the run with this worker's next micro-batches.

        Raises:
            BadData: an image is broken and ``skip_broken`` is off.
            TrainingFailed: the loss is not finite; weights and BatchNorm statistics are those before the step.
        """
        started = time.perf_counter()
        state, progress = self.state, self.state.progress
        epoch, step = progress.epoch, progress.step
        lr = learning_rate(state.spec.optim, epoch * self.plan.steps + step, self.plan.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        state.optimizer.zero_grad(set_to_none=True)
        state.train_mode(self.network)
        with self.statistics.recording():
            passes, tallies = self._passes(batches)
        loss_sum, correct, counted = self.statistics.end_step(passes, tallies).tolist()
        loss = loss_sum / max(counted, 1)
        if not math.isfinite(loss):
            self.statistics.restore()
            raise TrainingFailed(
                f"the loss is {loss} at epoch {epoch + 1}, step {step + 1}: the run stops and keeps its best model; "
                f"try a lower learning rate (now {state.spec.optim.learning_rate:g})"
            )
        state.optimizer.step()
        if state.average:
            state.average.update_parameters(state.network)
        progress.step += 1
        seconds = time.perf_counter() - started
        for name, value in (("loss", loss_sum), ("correct", correct), ("images", counted), ("seconds", seconds)):
            progress.sums[name] += value
        return StepReport(
            epoch=epoch + 1,
            epochs=state.spec.optim.epochs,
            step=step + 1,
            steps=self.plan.steps,
            loss=loss,
            images=int(counted),
            seconds=seconds,
        )

    def _passes(self, batches: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward passes of this worker's micro-batches in a step.

        Returns:
            The number of micro-batches, shape (), and the sums of (loss, correct, images) over them, shape (3,).
        """
        state, worker = self.state, self.worker
        epoch, step = state.progress.epoch, state.progress.step
        rounds = self.plan.rounds(step, worker)
        passes = torch.zeros((), dtype=torch.float64, device=state.device)
        tallies = torch.zeros(3, dtype=torch.float64, device=state.device)
        for turn in range(rounds):
            micro = worker.rank + turn * worker.world_size
            batch = next(batches)
            self._record_broken(batch.broken)
            accumulate = turn < rounds - 1 and isinstance(self.network, DistributedDataParallel)
            with self.network.no_sync() if accumulate else nullcontext():  # type: ignore[operator]
                # Broken images may leave a single one, which BatchNorm cannot take: it waits for the next epoch.
                if micro < self.plan.micro_batches(step) and len(batch.index_B) >= MIN_MICRO_BATCH:
                    # Dropout depends on the position alone, not on the number of workers or where a run was resumed.
                    with seeded(derive_seed(state.spec.seed, epoch, step, micro)):
                        tallies += self._pass(batch, weight=worker.world_size / self.plan.step_images(step))
                    passes += 1
                else:
                    self._filler_pass()
        return passes, tallies

    def _pass(self, batch: Batch, weight: float) -> torch.Tensor:
        """Forward and backward pass of one micro-batch; returns the sums of (loss, correct, images), shape (3,)."""
        inputs, target_B = to_device(batch, self.state)
        with self.autocast:
            logit_BK = self.network(*inputs).float()  # a network with several branches trains each by itself
        smoothing = self.state.spec.optim.label_smoothing
        smooth_BK = (target_B * (1 - smoothing) + smoothing / 2)[:, None].expand_as(logit_BK)
        losses_B = binary_cross_entropy_with_logits(logit_BK, smooth_BK, reduction="none").mean(1)
        of_real, of_fake = self.class_weight
        losses_B = losses_B * torch.where(target_B > 0.5, of_fake, of_real)
        (losses_B.sum() * weight).backward()
        self.statistics.record()
        correct = ((logit_BK.detach().mean(1) > 0) == (target_B > 0.5)).sum()
        return torch.stack([losses_B.detach().sum().double(), correct.double(), correct.new_tensor(len(target_B))])

    def _filler_pass(self) -> None:
        """A pass with a gradient of zero, so that this worker takes part in the step's collective operations."""
        state = self.state
        size = state.spec.augment.crop or state.spec.preprocess.image_size
        inputs = [torch.zeros(1, 3, size, size, device=state.device)]
        if isinstance(state.network, FrozenNetwork):
            inputs.append(torch.zeros(1, state.network.head.mean.numel(), device=state.device))
        self.statistics.restore()
        self.network.eval()
        with self.autocast:
            logits = self.network(*inputs)
        (logits.float().sum() * 0).backward()
        state.train_mode(self.network)

    def _record_broken(self, broken: list[str]) -> None:
        if broken and not self.skip_broken:
            raise BadData(f"broken image: {broken[0]}; repair it, or leave broken images out with --skip-broken")
        listed = self.state.progress.broken_images
        listed.extend(item for item in broken if item not in listed)


def autocast(state: TrainState) -> Any:
    """The autocast context of a run's compute dtype on its device."""
    bf16 = resolve_compute_dtype(state.spec.optim, state.network, state.device) == "bf16"
    return torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=bf16)


def to_device(batch: Batch, state: TrainState) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The network's inputs and target_B, on the run's device.

    The inputs are the normalized images x_BCHW float32, in channels-last format, and feature_BD if there is one.
    """
    pixels = batch.pixels_BSSC.to(state.device, non_blocking=True)
    inputs = [normalize(pixels, state.spec.preprocess).contiguous(memory_format=torch.channels_last)]
    if batch.feature_BD is not None:
        inputs.append(batch.feature_BD.to(state.device, non_blocking=True))
    return inputs, batch.target_B.to(state.device, non_blocking=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which torch's random numbers start from ``seed``; the caller's random stream goes on after it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed that depends on each of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
