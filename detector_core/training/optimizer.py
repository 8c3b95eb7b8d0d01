"""The optimizer of a run, its learning rate at every step, the weights of the classes, and the dtype it computes in."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detector_core.config import OptimSpec, RunSpec
from detector_core.networks.catalog import find_network


def learning_rate(optim: OptimSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over the whole run: a linear warm-up, then the schedule."""
    lr = optim.learning_rate * min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if optim.schedule == "constant":
        return lr
    return lr * 0.5 * (1 + math.cos(math.pi * step / (optim.epochs * steps_per_epoch)))


def create_optimizer(network: nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """The optimizer of a spec. Classification layers are a separate group; each step sets the learning rates."""
    prefixes = tuple(f"{head}." for head in find_network(spec.model.architecture).heads)
    heads: list[nn.Parameter] = []
    body: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (heads if name.startswith(prefixes) else body).append(parameter)
    factors = ((body, 1.0), (heads, spec.optim.head_learning_rate_factor))
    groups = [{"params": parameters, "factor": factor} for parameters, factor in factors if parameters]
    if spec.optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=spec.optim.weight_decay, fused=True)
    return torch.optim.Adam(groups, fused=True)


ClassWeight = tuple[float, float]
"""The weights of the losses of a real and of a fake image."""


def class_weight(optim: OptimSpec, is_fake_N: NDArray[np.bool_]) -> ClassWeight:
    """The weights with which both classes of a training split weigh the same; their mean over its images is 1."""
    fakes = int(is_fake_N.sum())
    counts = len(is_fake_N) - fakes, fakes
    if optim.class_weights == "none" or not all(counts):
        return 1.0, 1.0
    return len(is_fake_N) / (2 * counts[0]), len(is_fake_N) / (2 * counts[1])


def resolve_compute_dtype(optim: OptimSpec, network: nn.Module, device: torch.device) -> str:
    """``bf16`` or ``fp32``; ``auto`` is bf16 where it is faster.

    That is on hardware that supports it natively, except on a CPU for a network that trains depthwise convolutions:
    their backward pass is slower in bf16 there (docs/decisions.md).
    """
    if optim.compute_dtype != "auto":
        return optim.compute_dtype
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        faster = native and not _trains_depthwise(network)
    return "bf16" if faster else "fp32"


def _trains_depthwise(network: nn.Module) -> bool:
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(1 < module.groups == module.in_channels and module.weight.requires_grad for module in convolutions)
