"""The paper's own network: a bottleneck residual network of 68 layers.

Counted as ResNet-50 and ResNet-101 are: the stem convolution, three convolutions in each bottleneck block, and the
final linear layer; projections on the shortcuts are not counted. 1 + 3 * 22 + 1 = 68 needs 22 blocks. The paper's
figure of the stage layout is lost; [3, 4, 12, 3] grows stage 3 as ResNet-101 and -152 grow it, and is a reading, so
the layout is a parameter.

Source: paper section III-E and Fig. 4; K. He et al., "Deep residual learning for image recognition", CVPR 2016.
"""

from collections.abc import Sequence

from timm.models.resnet import Bottleneck, ResNet
from torch import nn

LAYOUT = (3, 4, 12, 3)
SMALLEST_IMAGE = 32


def resnet68(layout: Sequence[int] = LAYOUT) -> nn.Module:
    """The network with random weights: x_BCHW float32 -> logit_B1 of *fake*.

    30.21 M parameters and 5.40 GMACs at 224 px for the default layout. The last BatchNorm of each block starts at
    zero, so that a block starts as the identity.
    """
    return ResNet(Bottleneck, tuple(layout), num_classes=1, zero_init_last=True)


def count_layers(model: nn.Module) -> int:
    """Convolutions and linear layers on the longest path; projections on shortcuts are not counted."""
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and ".downsample." not in f".{name}."
        for name, module in model.named_modules()
    )
