"""What data-parallel workers have to agree on: sums, gathered values and BatchNorm's running statistics.

Uses the process group of ``torch.distributed`` if the launcher (Ray Train, torchrun) has set one up; a single process
needs none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """Sums a tensor elementwise over all workers, in place, and returns it; a single worker's stays as it is."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """A picklable value from each worker, in the order of their ranks."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


class BatchNormStatistics:
    """Running means and variances that do not depend on how micro-batches are distributed over workers.

    PyTorch moves them by ``momentum`` in every forward pass, on each worker by its own passes. Here each pass of a step
    only records the statistics of its micro-batch. At the end of the step their mean over *all* micro-batches of all
    workers moves the running values as far as that many passes would: by 1 - (1 - momentum) ** passes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.norms: list[tuple[nn.modules.batchnorm._BatchNorm, float]] = []
        self.buffers: list[torch.Tensor] = []
        self.momenta: list[float] = []  # one for each buffer
        for norm in network.modules():
            frozen = not all(parameter.requires_grad for parameter in norm.parameters(recurse=False))
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.momentum is not None and not frozen:
                self.norms.append((norm, norm.momentum))
                buffers = [buffer for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
                self.buffers += buffers
                self.momenta += [norm.momentum] * len(buffers)
        self.before_step: list[torch.Tensor] = []
        self.sums: list[torch.Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A block for the forward passes of one step, in which the running values are those of the last pass alone.

        Call :meth:`record` after each pass. At the end of the block the layers have their own momentum again; after an
        error the running values are those before the step.
        """
        self.before_step = [buffer.clone() for buffer in self.buffers]
        self.sums = [torch.zeros_like(buffer) for buffer in self.buffers]
        for norm, _ in self.norms:
            norm.momentum = 1.0
        try:
            yield
        except BaseException:
            self.restore()
            raise
        finally:
            for norm, momentum in self.norms:
                norm.momentum = momentum

    def record(self) -> None:
        """Adds the statistics of the last forward pass to the sums of this step."""
        if self.sums:
            torch._foreach_add_(self.sums, self.buffers)

    def restore(self) -> None:
        """Resets the running values to those before the step, e.g. for a pass in evaluation mode within it."""
        if self.before_step:
            torch._foreach_copy_(self.buffers, self.before_step)

    def end_step(self, passes: torch.Tensor, tallies: torch.Tensor) -> torch.Tensor:
        """Moves the running values, and returns ``tallies`` summed over all workers (in the same all-reduce).

        Args:
            passes: number of micro-batches that this worker recorded, shape (), float64.
            tallies: shape (N,), float64.
        """
        flat = [part.double().flatten() for part in self.sums]
        message = all_sum(torch.cat([*flat, passes.reshape(1), tallies]))
        lengths = [part.numel() for part in self.sums]
        *sums, passes, tallies = torch.split(message, [*lengths, 1, len(tallies)])
        count = float(passes)
        for buffer, before, total, momentum in zip(self.buffers, self.before_step, sums, self.momenta, strict=True):
            weight = 1 - (1 - momentum) ** count
            mean = (total / max(count, 1)).to(buffer.dtype).view_as(buffer)
            buffer.copy_(torch.lerp(before, mean, weight))
        return tallies
