"""The paper's own network: a residual network of 68 layers, built from bottleneck blocks.

Layers are counted as for ResNet-50 and ResNet-101: the stem convolution, three convolutions per bottleneck block and
the final linear layer, without the projections on the shortcuts. 68 = 1 + 3 * 22 + 1, so there are 22 blocks. The
figure with the paper's stage layout is lost. [3, 4, 12, 3] is an interpretation that extends stage 3, as ResNet-101 and
-152 do; therefore the layout is a parameter. The stride of a stage is in its first 3x3 convolution.

Written in plain PyTorch with torchvision's parameter names: it imports nothing but torch, so every worker and replica
starts seconds earlier than with torchvision or timm.

Source: paper section III-E and Fig. 4; K. He et al., "Deep residual learning for image recognition", CVPR 2016.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import relu

LAYOUT = (3, 4, 12, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
SMALLEST_IMAGE = 32


class Bottleneck(nn.Module):
    """The paper's block: 1x1, 3x3 and 1x1 convolutions plus a shortcut, with a projection if the shape changes.

    The paper's "convolution block" is the one with a projection, its "identity block" the one without.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """x_BCHW -> x_BDhw, D = 4 * width, h and w divided by the stride."""
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        y = relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        y = relu(self.bn2(self.conv2(y)), inplace=True)
        return relu(self.bn3(self.conv3(y)) + shortcut, inplace=True)


class ResNet(nn.Module):
    """Stem, four stages of bottleneck blocks, global average pooling, one linear layer."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, layout: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = WIDTHS[0]
        for number, (blocks, width) in enumerate(zip(layout, WIDTHS, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(Bottleneck(channels, width, stride=2 if block == 0 and number > 1 else 1))
                channels = width * EXPANSION
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(channels, 1)
        self._initialize()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """x_BCHW float32 -> logit_B1 of *fake*."""
        y = self.maxpool(relu(self.bn1(self.conv1(x_BCHW)), inplace=True))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        logit_B1: torch.Tensor = self.fc(y.mean((2, 3)))
        return logit_B1

    def _initialize(self) -> None:
        """He initialization; the last BatchNorm of each block starts at zero, so the block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)


def resnet68(layout: Sequence[int] = LAYOUT) -> ResNet:
    """Builds the network with random weights: 30.21 M parameters and 5.40 GMACs at 224 px in the default layout."""
    return ResNet(layout)


def count_layers(model: nn.Module) -> int:
    """Counts the convolutions and linear layers, without the projections on the shortcuts."""
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and ".downsample." not in f".{name}."
        for name, module in model.named_modules()
    )
