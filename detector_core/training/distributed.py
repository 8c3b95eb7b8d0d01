"""What data-parallel workers must agree on: sums over all of them, and BatchNorm's running statistics.

Uses ``torch.distributed`` as it was set up by whoever launched the processes (Ray Train, torchrun); alone it does
without.
"""

from typing import Any

import torch
from torch import distributed, nn


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum over all workers; the tensor itself when there is one worker."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """One picklable value from each worker, in order of rank."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


class BatchNormStatistics:
    """Running means and variances that do not depend on how micro-batches are dealt out to workers.

    PyTorch moves them by ``momentum`` once a forward pass, each worker by its own passes. Here each pass only records
    its batch's statistics (momentum 1); once a step their mean over *all* micro-batches of all workers moves the
    running values as that many passes would: by 1 - (1 - momentum) ** passes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.buffers: list[torch.Tensor] = []
        self.momenta: list[float] = []
        for norm in network.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.momentum is not None:
                buffers = [buffer for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
                self.buffers += buffers
                self.momenta += [norm.momentum] * len(buffers)
                norm.momentum = 1.0
        self.kept: list[torch.Tensor] = []
        self.sums: list[torch.Tensor] = []

    def begin_step(self) -> None:
        """Remembers the running values and starts this step's sums."""
        self.kept = [buffer.clone() for buffer in self.buffers]
        self.sums = [torch.zeros_like(buffer) for buffer in self.buffers]

    def record(self) -> None:
        """Adds the statistics of the forward pass just made."""
        if self.sums:
            torch._foreach_add_(self.sums, self.buffers)

    def restore(self) -> None:
        """Puts the running values of before the step back, so that an eval pass within it can use them."""
        if self.kept:
            torch._foreach_copy_(self.buffers, self.kept)

    def end_step(self, passes: torch.Tensor, tallies: torch.Tensor) -> torch.Tensor:
        """Moves the running values; sums ``tallies`` over all workers in the same message and returns them.

        Args:
            passes: how many micro-batches this worker recorded, shape (), float64.
            tallies: shape (N,), float64.
        """
        flat = [part.double().flatten() for part in self.sums]
        message = all_sum(torch.cat([*flat, passes.reshape(1), tallies]))
        lengths = [part.numel() for part in self.sums]
        *means, passes, tallies = torch.split(message, [*lengths, 1, len(tallies)])
        count = float(passes)
        for buffer, kept, total, momentum in zip(self.buffers, self.kept, means, self.momenta, strict=True):
            moved = 1 - (1 - momentum) ** count
            mean = (total / max(count, 1)).to(buffer.dtype).view_as(buffer)
            buffer.copy_(torch.lerp(kept, mean, moved))
        return tallies
