"""One optimizer step of a run, and the state that steps change.

A step sums its gradient over the micro-batches of the global batch, whoever computes them; see
:mod:`detector_core.data.loading` for how they are dealt out and :mod:`detector_core.training.distributed` for
BatchNorm.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from detector_core.config import OptimSpec, RunSpec
from detector_core.data.loading import Batch, EpochPlan, Place
from detector_core.errors import BadData, BrokenArtifact, TrainingFailed
from detector_core.images.preprocess import normalize
from detector_core.networks import factory
from detector_core.training import checkpoint
from detector_core.training.checkpoint import Progress
from detector_core.training.distributed import BatchNormStatistics


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """After an optimizer step. ``loss`` is the mean over the global batch; times are this process's own."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images: int
    seconds: float


class TrainState:
    """A run between two steps: network, optimizer, position, history and the best weights so far."""

    def __init__(self, spec: RunSpec, fingerprint: str, device: str = "cpu", *, pretrained: bool = True) -> None:
        """A run that has not begun.

        Raises:
            NoWeights: pretrained weights cannot be had.
            BadConfig: an image too small for the network.
        """
        factory.check_image_size(spec.model, spec.preprocess.image_size)
        torch.manual_seed(spec.seed)
        self.spec = spec
        self.device = torch.device(device)
        self.network = factory.build(spec.model, pretrained=pretrained).to(self.device)
        self.network = self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=spec.optim.learning_rate, fused=True)
        self.progress = Progress(spec=spec.to_dict(), fingerprint=fingerprint)
        self.best_weights: dict[str, torch.Tensor] | None = None

    def save(self, folder: Path) -> None:
        """Writes a checkpoint into an empty local folder (see :mod:`detector_core.training.checkpoint`)."""
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoint.save(folder, self.progress, state, self.best_weights)

    @classmethod
    def load(cls, folder: Path, spec: RunSpec, fingerprint: str, device: str = "cpu") -> "TrainState":
        """A run as it was saved.

        Raises:
            BrokenArtifact: the checkpoint is damaged, or belongs to another spec or data set.
        """
        progress = checkpoint.read(folder)
        for what, saved, asked in (
            ("spec", progress.spec, spec.to_dict()),
            ("data set", progress.fingerprint, fingerprint),
        ):
            if saved != asked:
                raise BrokenArtifact(f"{folder} was saved by a run with another {what}: use another --name")
        state = cls(spec, fingerprint, device, pretrained=False)
        saved_state = checkpoint.read_state(folder)
        state.network.load_state_dict(saved_state["network"])
        state.optimizer.load_state_dict(saved_state["optimizer"])
        state.progress = progress
        state.best_weights = checkpoint.read_best(folder)
        return state

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or ``patience`` epochs in a row brought no lower validation loss."""
        done, patience = self.progress.epoch, self.spec.optim.patience
        waited = patience > 0 and done - 1 - self.progress.best_epoch >= patience
        return done >= self.spec.optim.epochs or waited


class Stepper:
    """One optimizer step at a time: micro-batches, accumulation, all-reduce."""

    def __init__(self, state: TrainState, epoch_plan: EpochPlan, place: Place, skip_broken: bool) -> None:
        self.state, self.plan, self.place, self.skip_broken = state, epoch_plan, place, skip_broken
        self.statistics = BatchNormStatistics(state.network)
        network = torch.compile(state.network) if state.spec.optim.compile else state.network
        self.network: nn.Module = network  # type: ignore[assignment]
        if place.workers > 1:
            # Buffers are BatchNorm's, which BatchNormStatistics keeps equal.
            self.network = DistributedDataParallel(
                self.network, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        self.autocast = autocast(state)

    def step(self, batches: Iterator[Batch]) -> StepReport:
        started = time.perf_counter()
        state, place, progress = self.state, self.place, self.state.progress
        epoch, step = progress.epoch, progress.step
        images = self.plan.step_images(step)
        rounds = self.plan.rounds(step, place)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.spec.optim, epoch * self.plan.steps + step, self.plan.steps)
        state.optimizer.zero_grad(set_to_none=True)
        self.statistics.begin_step()
        self.network.train()
        passes = torch.zeros((), dtype=torch.float64, device=state.device)
        tallies = torch.zeros(3, dtype=torch.float64, device=state.device)
        for turn in range(rounds):
            micro = place.rank + turn * place.workers
            batch = next(batches)
            self._record_broken(batch.broken)
            hold = turn < rounds - 1 and isinstance(self.network, DistributedDataParallel)
            with self.network.no_sync() if hold else nullcontext():  # type: ignore[operator]
                if micro < self.plan.micro_batches(step) and len(batch.index_B):
                    # Dropout's draws come from the position alone, so they survive resuming and re-dealing.
                    torch.manual_seed(_derive(state.spec.seed, epoch, step, micro))
                    tallies += self._pass(batch, weight=place.workers / images)
                    passes += 1
                else:
                    self._filler_pass()
        loss_sum, correct, counted = self.statistics.end_step(passes, tallies).tolist()
        loss = loss_sum / max(counted, 1)
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} at epoch {epoch + 1}, step {step + 1}: the run stops and keeps its best model; "
                f"try a lower learning rate (now {state.spec.optim.learning_rate:g})"
            )
        state.optimizer.step()
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

    def _pass(self, batch: Batch, weight: float) -> torch.Tensor:
        """Forward and backward of one micro-batch; its (summed loss, correct, images)."""
        x_BCHW, target_B = to_device(batch, self.state)
        with self.autocast:
            logit_B = self.network(x_BCHW).squeeze(1).float()
        losses = binary_cross_entropy_with_logits(logit_B, target_B, reduction="none")
        (losses.sum() * weight).backward()  # type: ignore[no-untyped-call]
        self.statistics.record()
        correct = ((logit_B.detach() > 0) == (target_B > 0.5)).sum()
        return torch.stack([losses.detach().sum().double(), correct.double(), correct.new_tensor(len(target_B))])

    def _filler_pass(self) -> None:
        """Takes part in the step's collective operations with a gradient of zero."""
        size = self.state.spec.preprocess.image_size
        self.statistics.restore()
        self.network.eval()
        with self.autocast:
            logits = self.network(torch.zeros(1, 3, size, size, device=self.state.device))
        (logits.float().sum() * 0).backward()
        self.network.train()

    def _record_broken(self, broken: list[str]) -> None:
        if broken and not self.skip_broken:
            raise BadData(f"broken image: {broken[0]}; repair it, or leave broken images out with --skip-broken")
        listed = self.state.progress.broken_images
        listed.extend(item for item in broken if item not in listed)


def learning_rate(optim: OptimSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step of the whole run, counted from 0."""
    if optim.schedule == "constant":
        return optim.learning_rate
    return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * step / (optim.epochs * steps_per_epoch)))


def resolve_compute_dtype(optim: OptimSpec, device: torch.device) -> str:
    """``auto`` resolved: bf16 where the hardware multiplies it natively, else fp32."""
    if optim.precision != "auto":
        return optim.precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def autocast(state: TrainState) -> Any:
    """The autocast context of a run's precision on its device."""
    wanted = resolve_compute_dtype(state.spec.optim, state.device) == "bf16"
    return torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=wanted)


def to_device(batch: Batch, state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
    """x_BCHW float32, channels last, and target_B, on the run's device."""
    pixels = batch.pixels_BSSC.to(state.device, non_blocking=True)
    x_BCHW = normalize(pixels, state.spec.preprocess).contiguous(memory_format=torch.channels_last)
    return x_BCHW, batch.target_B.to(state.device, non_blocking=True)


def _derive(*numbers: int) -> int:
    """A 63-bit seed from a position."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
