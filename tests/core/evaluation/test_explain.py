"""Heat maps of a network whose evidence is known, and the images with the largest errors."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from detector_core.config import ModelSpec, PreprocessSpec
from detector_core.data import manifest
from detector_core.errors import BadConfig
from detector_core.evaluation import explain
from detector_core.networks import factory


class RedMinusGreen(nn.Module):
    """Red is evidence for fake, green for real: a 1x1 convolution that separates them, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
        self.head = nn.Linear(2, 1, bias=False)
        self.head.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x_BCHW).mean((2, 3)))


def test_heat_is_where_the_evidence_for_the_label_is() -> None:
    x_BCHW = torch.zeros(2, 3, 16, 16)
    x_BCHW[:, 0, :4, :4] = 1.0  # red, top left: fake
    x_BCHW[:, 1, 12:, 12:] = 0.5  # green, bottom right: real
    network = RedMinusGreen().eval()
    fake, real = explain.heat_maps(network, x_BCHW, ["fake", "real"])
    assert fake.shape == (16, 16)
    assert (fake[:4, :4] == 1).all()
    assert fake.sum() == 16
    assert (real[12:, 12:] == 1).all()
    assert real.sum() == 16
    assert all(parameter.grad is None for parameter in network.parameters())


def test_without_evidence_the_heat_map_is_zero() -> None:
    (heat,) = explain.heat_maps(RedMinusGreen().eval(), torch.zeros(1, 3, 16, 16), ["fake"])
    assert (heat == 0).all()


@pytest.mark.parametrize(
    ("name", "size"), [("resnet68", 64), ("inception_resnet_v2", 80), ("vggface2", 80), ("timm:densenet121", 64)]
)
def test_convolutional_networks_can_be_explained(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = factory.build(ModelSpec(architecture=name)).eval()
    x_BCHW = torch.rand(1, 3, size, size).repeat(2, 1, 1, 1)  # one image, explained in both directions
    before = {key: value.clone() for key, value in network.state_dict().items()}
    heats = explain.heat_maps(network, x_BCHW, ["fake", "real"])
    assert all(heat.shape == (size, size) and np.isfinite(heat).all() for heat in heats)
    assert max(heat.max() for heat in heats) == pytest.approx(1.0), "evidence for one of the two"
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_evidence_is_that_of_a_whole_stage_not_of_one_branch_of_the_next_block() -> None:
    """At 64 px the second stage of Resnet-68 has 8 x 8 cells and the third 4 x 4, but the first layers of its first
    block still have 8 x 8."""
    torch.manual_seed(0)
    network = factory.build(ModelSpec(architecture="resnet68")).eval()
    stages: list[torch.Tensor] = []
    network.get_submodule("layer2").register_forward_hook(lambda _module, _inputs, output: stages.append(output))
    x_BCHW = torch.rand(1, 3, 64, 64)
    (heat,) = explain.heat_maps(network, x_BCHW, ["fake"])
    (gradient,) = torch.autograd.grad(network(x_BCHW).sum(), stages[-1])
    evidence = (gradient.mean((2, 3), keepdim=True) * stages[-1]).sum(1).relu().detach()
    assert heat.reshape(8, 8, 8, 8).mean((1, 3)).argmax() == evidence.argmax()
    assert heat.max() == pytest.approx(1.0)


def test_a_transformer_has_no_heat_map() -> None:
    network = factory.build(ModelSpec(architecture="timm:test_vit")).eval()
    with pytest.raises(BadConfig, match="no feature map"):
        explain.heat_maps(network, torch.rand(1, 3, 160, 160), ["fake"])


def test_the_largest_errors_are_the_images_farthest_from_their_label() -> None:
    scores = pd.DataFrame(
        {
            "path": ["a", "b", "c", "d", "e"],
            "label": ["real", "real", "fake", "fake", "fake"],
            "p_fake": [0.2, 0.9, 0.1, 0.8, 0.5],
        }
    )
    worst = explain.largest_errors(scores, 2)
    assert worst["real"]["path"].tolist() == ["b", "a"]
    assert worst["fake"]["path"].tolist() == ["c", "e"]


@pytest.mark.parametrize(("labels", "rows"), [(["real", "fake"], 2), (["fake"], 1)])
def test_the_worst_images_are_shown_for_each_class(tiny_dataset: Path, labels: list[str], rows: int) -> None:
    data = manifest.load(str(tiny_dataset))
    test = data.split("test")
    test = test[test["label"].isin(labels)].assign(p_fake=np.linspace(0, 1, len(test[test["label"].isin(labels)])))
    network = factory.build(ModelSpec(architecture="timm:test_resnet")).eval()
    png = explain.draw_worst_images(network, PreprocessSpec(image_size=32), test, data.root, 0.5)
    assert Image.open(io.BytesIO(png)).size == (1280, 400 * rows)


@pytest.mark.parametrize(("name", "size", "colored"), [("test_resnet", 32, True), ("test_vit", 160, False)])
def test_without_feature_maps_the_worst_images_have_no_heat_maps(
    tiny_dataset: Path, name: str, size: int, colored: bool
) -> None:
    data = manifest.load(str(tiny_dataset))
    real = data.split("test").query("label == 'real'").assign(p_fake=0.9)
    torch.manual_seed(0)
    network = factory.build(ModelSpec(architecture=f"timm:{name}")).eval()
    png = explain.draw_worst_images(network, PreprocessSpec(image_size=size), real, data.root, 0.5)
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    upper, lower = np.array_split(np.ptp(sheet, axis=2), 2)
    assert upper.max() > 20
    assert bool(lower.max() > 20) is colored
