"""Frozen backbones with features from every stage, small MLP heads on them, and a fine-tuned branch next to them.

::

    x_BCHW -> each frozen backbone: mean and standard deviation of each channel over the plane,
              after the stem and after each stage -> feature_BD
    feature_BD -> standardized by the training data's mean and deviation -> HEADS small MLPs -> logit_BK
    x_BCHW -> a fine-tuned network (the ensemble only) -> logit_B1

Generator artifacts also appear in early stages, so features come from every stage. In training the network returns one
logit per branch, and each branch is trained independently; in evaluation the logit is the mean of the MLPs, averaged
with that of the fine-tuned branch. A frozen backbone never changes: it is always in evaluation mode, its weights come
from a package, and its features can be computed once (:mod:`detector_core.training.features`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

HIDDEN = 128
INPUT_DROPOUT_FACTOR = 0.4
"""Dropout of the features, as a fraction of that of the hidden layer."""
HEADS = 3
"""MLPs that start from different random weights and are averaged."""
LEAST_DEVIATION = 0.01
"""What a feature is divided by at least. Features that hardly vary (18 of the 3,408 of Lite0 and Lite2) say nothing;
divided by less, they would turn rounding into large inputs: in half precision, bf16, int8 or on another CPU."""
BACKBONES = "backbones."
"""Prefix of the frozen weights in a state dict. A model folder does not contain them: the package does."""


class FrozenBackbone(nn.Module):
    """A timm EfficientNet without its classifier: x_BCHW -> feature_BD. Its own weights take no gradients."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(network.conv_stem, network.bn1), *network.blocks])
        self.requires_grad_(False)
        super().train(False)

    @property
    def width(self) -> int:
        """Numbers per image: two for each channel of the stem and of each stage."""
        return 2 * sum(_output_channels(part) for part in self.parts)

    def train(self, mode: bool = True) -> "FrozenBackbone":  # noqa: ARG002
        """Stays in evaluation mode regardless of ``mode``, so that BatchNorm keeps its statistics."""
        return self

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """feature_BD float32."""
        pooled = []
        for part in self.parts:
            x_BCHW = part(x_BCHW)
            pooled.append(channel_statistics(x_BCHW))
        return torch.cat(pooled, dim=1)


class MlpHeads(nn.Module):
    """feature_BD -> logit_BK: HEADS multilayer perceptrons on standardized features."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(INPUT_DROPOUT_FACTOR * dropout),
                nn.Linear(width, HIDDEN),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(HIDDEN, 1),
            )
            for _ in range(HEADS)
        )

    def standardize(self, feature_ND: torch.Tensor) -> None:
        """Sets mean and standard deviation, at least LEAST_DEVIATION, to those of the training features."""
        self.mean.copy_(feature_ND.mean(0))
        self.deviation.copy_(feature_ND.std(0, correction=0).clamp_min(LEAST_DEVIATION))

    def forward(self, feature_BD: torch.Tensor) -> torch.Tensor:
        """logit_BK of *fake*, K = HEADS."""
        scaled_BD = (feature_BD - self.mean) / self.deviation
        return torch.cat([head(scaled_BD) for head in self.heads], dim=1)


class FrozenNetwork(nn.Module):
    """Frozen backbones, heads on their features and, in an ensemble, a fine-tuned network.

    Args:
        backbones: timm EfficientNets, whose weights stay as they are.
        dropout: of the heads.
        tuned: a network that gives logit_B1 and is trained next to the heads; None for heads alone.
    """

    def __init__(self, backbones: Sequence[nn.Module], dropout: float, tuned: nn.Module | None = None) -> None:
        super().__init__()
        frozen = [FrozenBackbone(network) for network in backbones]
        self.backbones = nn.ModuleList(frozen)
        self.head = MlpHeads(sum(backbone.width for backbone in frozen), dropout)
        self.tuned = tuned  # last, so that heat maps are drawn from its feature map

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """feature_BD float32 of all backbones."""
        return torch.cat([backbone(x_BCHW) for backbone in self.backbones], dim=1)

    def forward(self, x_BCHW: torch.Tensor, feature_BD: torch.Tensor | None = None) -> torch.Tensor:
        """logit_BK of *fake* in training: one for each head, then the fine-tuned one; logit_B1 in evaluation.

        Args:
            x_BCHW: whole images; in training with ``feature_BD``, what the fine-tuned branch sees (a crop).
            feature_BD: the frozen features, if they are known already.
        """
        logit_BK: torch.Tensor = self.head(self.features(x_BCHW) if feature_BD is None else feature_BD)
        if self.tuned is None:
            return logit_BK if self.training else logit_BK.mean(1, keepdim=True)
        tuned_B1 = self.tuned(x_BCHW)
        if self.training:
            return torch.cat([logit_BK, tuned_B1], dim=1)
        both_B1: torch.Tensor = (logit_BK.mean(1, keepdim=True) + tuned_B1) / 2
        return both_B1


class FeatureNetwork(nn.Module):
    """What a network's frozen backbones compute, as a network of its own: x_BCHW -> feature_BD float32."""

    def __init__(self, network: FrozenNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """feature_BD float32."""
        return self.network.features(x_BCHW)


def trained_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without frozen backbones, whose weights come from a package."""
    return {name: value for name, value in network.state_dict().items() if not name.startswith(BACKBONES)}


def load_trained_state(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Loads what :func:`trained_state` returned. Raises RuntimeError if it does not fit the network."""
    frozen = {name: value for name, value in network.state_dict().items() if name.startswith(BACKBONES)}
    network.load_state_dict({**frozen, **state})


def channel_statistics(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Means, then standard deviations, of each channel over the plane: (B, 2 C) float32."""
    x_BCHW = x_BCHW.float()
    mean_BC = x_BCHW.mean((2, 3))
    variance_BC = (x_BCHW - mean_BC[:, :, None, None]).square().mean((2, 3))
    return torch.cat([mean_BC, (variance_BC + 1e-8).sqrt()], dim=1)


def _output_channels(stage: nn.Module) -> int:
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
