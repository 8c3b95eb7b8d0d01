"""detector_core.networks.frozen: what stays frozen, what the branches give, and one graph for all of it."""

import numpy as np
import pytest
import timm
import torch

from detector_core.networks.frozen import HEADS, FrozenBackbone, FrozenNetwork, channel_statistics


def network(*, tuned: bool = False, backbones: int = 2) -> FrozenNetwork:
    """Small EfficientNets with random weights."""
    torch.manual_seed(0)
    made = [timm.create_model("test_efficientnet", num_classes=1) for _ in range(backbones + tuned)]
    return FrozenNetwork(made[:backbones], 0.5, made[-1] if tuned else None)


def images(count: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_statistics_are_those_of_numpy() -> None:
    x_BCHW = images()
    found = channel_statistics(x_BCHW).numpy()
    planes = x_BCHW.numpy().reshape(3, 3, -1)
    assert found == pytest.approx(np.concatenate([planes.mean(2), planes.std(2)], axis=1), abs=1e-5)


def test_the_width_counts_every_stage_twice() -> None:
    backbone = FrozenBackbone(timm.create_model("tf_efficientnet_lite0"))
    channels = 32 + 16 + 24 + 40 + 80 + 112 + 192 + 320  # stem and stages of EfficientNet-Lite0
    assert backbone.width == 2 * channels == backbone(images(1))[0].numel()


@pytest.mark.parametrize("tuned", [False, True])
def test_training_changes_the_branches_and_never_a_backbone(tuned: bool) -> None:
    model = network(tuned=tuned).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logit_BK = model(images())
    assert logit_BK.shape == (3, HEADS + tuned)
    logit_BK.sum().backward()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    changed = {
        name.partition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == ({"head", "tuned"} if tuned else {"head"})


def test_each_branch_learns_by_itself() -> None:
    model = network(tuned=True).train()
    gradients = torch.autograd.grad(
        model(images())[:, 0].sum(), list(model.head.heads[1].parameters()), allow_unused=True
    )
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_the_logit_is_the_mean_of_the_branches() -> None:
    model = network(tuned=True).eval()
    with torch.inference_mode():
        x_BCHW = images()
        heads = model.head(model.features(x_BCHW)).mean(1)
        assert model(x_BCHW)[:, 0] == pytest.approx((heads + model.tuned(x_BCHW)[:, 0]) / 2)  # type: ignore[misc]


def test_known_features_replace_the_backbones() -> None:
    model = network().eval()
    with torch.inference_mode():
        x_BCHW = images()
        feature_BD = model.features(x_BCHW)
        assert torch.equal(model(x_BCHW), model(torch.empty(0), feature_BD))


def test_standardized_features_have_mean_0_and_deviation_1() -> None:
    model = network()
    feature_ND = torch.randn(50, model.head.mean.numel()) * 5 + 3
    feature_ND[:, 0] = 7.0  # a channel that never changes must not divide by zero
    model.head.standardize(feature_ND)
    scaled = (feature_ND - model.head.mean) / model.head.deviation
    assert scaled.mean(0) == pytest.approx(torch.zeros(scaled.shape[1]), abs=1e-4)
    assert scaled[:, 1:].std(0, correction=0) == pytest.approx(torch.ones(scaled.shape[1] - 1), abs=1e-4)
    assert torch.isfinite(scaled).all()


def test_rounding_a_feature_that_hardly_varies_changes_nothing() -> None:
    model = network().eval()
    feature_ND = torch.randn(50, model.head.mean.numel())
    feature_ND[:, 0] = 0.162 + 1e-7 * feature_ND[:, 0]
    model.head.standardize(feature_ND)
    rounded_ND = feature_ND.clone()
    rounded_ND[:, 0] = feature_ND[:, 0].bfloat16().float()
    with torch.inference_mode():
        assert model.head(rounded_ND) == pytest.approx(model.head(feature_ND), abs=1e-2)
