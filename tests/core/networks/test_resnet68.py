"""detector_core.networks.resnet68: the paper's network, compared with its published size and with timm."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detector_core.networks.resnet68 import LAYOUT, SMALLEST_IMAGE, count_layers, resnet68


@pytest.mark.parametrize("layout", [LAYOUT, (4, 6, 8, 4), (3, 8, 8, 3)])
def test_every_plausible_layout_has_68_layers(layout: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert count_layers(resnet68(layout)) == 68


def test_the_layers_of_resnet50s_layout_are_counted_as_50() -> None:
    with torch.device("meta"):
        assert count_layers(resnet68((3, 4, 6, 3))) == 50


def test_parameters_and_macs_are_as_the_docstring_states() -> None:
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = resnet68().eval()
        model(torch.zeros(1, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(30.21, abs=0.005)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(5.40, abs=0.005)


def test_a_block_starts_as_the_identity() -> None:
    model = resnet68((1, 2, 1, 1)).eval()
    x_BCHW = torch.rand(1, 512, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(model.layer2[1](x_BCHW), x_BCHW)


def test_an_image_of_the_smallest_size_gives_one_finite_logit() -> None:
    with torch.inference_mode():
        logit = resnet68().eval()(torch.rand(2, 3, SMALLEST_IMAGE, SMALLEST_IMAGE))
    assert logit.shape == (2, 1)
    assert logit.isfinite().all()


def test_the_outputs_are_those_of_timms_bottleneck_resnet() -> None:
    from timm.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    ours, theirs = resnet68((1, 2, 2, 1)).eval(), ResNet(Bottleneck, (1, 2, 2, 1), num_classes=1).eval()
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    x_BCHW = torch.rand(2, 3, 65, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW))
