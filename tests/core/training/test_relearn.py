"""detector_core.training.relearn: the inputs of the last layer give the network's own logits, and a new one learns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from detector_core.config import PreprocessSpec
from detector_core.data import manifest
from detector_core.errors import BadConfig, BadImage
from detector_core.evaluation import scoring
from detector_core.networks.frozen import FrozenNetwork
from detector_core.training import relearn
from detector_core.training.relearn import LastLayerInputs, Trunk
from tests.support.models import Backbone, save_model
from tests.support.tagged import network_of

PREPROCESS = PreprocessSpec(image_size=32)


def networks(tmp_path: Path) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    tuned = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    return {
        "a network of timm": network_of(save_model(tmp_path / "model")),
        "heads on a frozen backbone": FrozenNetwork([Backbone()], 0.5),
        "heads and a fine-tuned branch": FrozenNetwork([Backbone()], 0.5, tuned),
    }


def test_the_inputs_of_the_last_layer_give_the_logits_of_the_network(tmp_path: Path, tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    rows = data.split("test")
    for name, network in networks(tmp_path).items():
        network.eval()
        expected = scoring.score(network, rows, data.root, PREPROCESS)["logit"]
        trunk = Trunk(network, PREPROCESS)
        inputs = trunk.inputs(rows, data.root, "test", cache=None)
        np.testing.assert_allclose(trunk.logits(inputs), expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert (inputs.other_N is not None) == (name == "heads and a fine-tuned branch")


def test_cached_inputs_are_used_again_until_another_weight_changes(tmp_path: Path, tiny_dataset: Path) -> None:
    data, network = manifest.load(str(tiny_dataset)), network_of(save_model(tmp_path / "model"))
    rows = data.split("test")
    trunk, computed = Trunk(network, PREPROCESS), []
    first = trunk.inputs(rows, data.root, "test", cache=tmp_path / "cache", progress=computed.append)
    again = trunk.inputs(rows, data.root, "test", cache=tmp_path / "cache", progress=computed.append)
    assert [report.images for report in computed] == [len(rows)]
    assert torch.equal(first.feature_ND, again.feature_ND)
    with torch.no_grad():
        next(trunk.last_layer.parameters()).add_(1)
    assert Trunk(network, PREPROCESS).sha256 == trunk.sha256
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert Trunk(network, PREPROCESS).sha256 != trunk.sha256


def test_a_missing_image_is_named_and_a_network_without_a_last_layer_refused(tmp_path: Path) -> None:
    trunk = Trunk(networks(tmp_path)["heads on a frozen backbone"], PREPROCESS)
    rows = pd.DataFrame({"path": ["gone.jpg"], "sha256": ["0" * 64]})
    with pytest.raises(BadImage, match=r"gone\.jpg: the file does not exist"):
        trunk.inputs(rows, str(tmp_path), "test", cache=None)
    with pytest.raises(BadConfig, match="Conv2d does not end in a linear layer with one output"):
        Trunk(nn.Conv2d(3, 1, 3), PREPROCESS)


def test_the_tags_weigh_more_the_more_there_are_but_never_more_than_half() -> None:
    weights = [relearn.tag_weights(tags, 1000)[0] for tags in (1, 10, 100, 10**6)]
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(8 / 1008)
    assert relearn.tag_weights(10**6, 1000) == [0.5, 0.25, 0.125, 0.0625]


def blobs(seed: int, axis: int, n: int = 200) -> tuple[LastLayerInputs, "pd.Series[str]"]:
    """Features that separate the classes along one axis."""
    draw = np.random.default_rng(seed)
    is_fake = np.arange(n) % 2 == 1
    feature = draw.normal(0, 0.5, (n, 8)).astype(np.float32)
    feature[is_fake, axis] += 3
    labels = pd.Series(np.where(is_fake, "fake", "real"))
    return LastLayerInputs(feature_ND=torch.from_numpy(feature), other_N=None), labels


def test_a_new_last_layer_learns_the_tags_and_forgets_nothing_with_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relearn, "LEARNING_RATE", 0.05)  # a layer of 8 weights
    torch.manual_seed(0)
    trunk = Trunk(nn.Sequential(nn.Flatten(), nn.Linear(8, 1)), PREPROCESS)
    before = trunk.last_layer.weight.clone()
    old, new = blobs(0, axis=0), blobs(1, axis=1)

    def accuracy(layer: nn.Module, images: tuple[LastLayerInputs, "pd.Series[str]"]) -> float:
        return float(np.mean((trunk.with_last_layer(layer).logits(images[0]) > 0) == (images[1] == "fake")))

    replayed = relearn.fit_last_layer(trunk, *new, *old, weight=0.5, seed=0)
    assert accuracy(replayed, new) > 0.95
    assert accuracy(replayed, old) > 0.95
    alone = relearn.fit_last_layer(trunk, *new, None, None, weight=1.0, seed=0)
    assert accuracy(alone, new) > 0.95
    assert accuracy(alone, old) < accuracy(replayed, old)
    same = relearn.fit_last_layer(trunk, *new, *old, weight=0.5, seed=0)
    assert all(torch.equal(*pair) for pair in zip(same.parameters(), replayed.parameters(), strict=True))
    assert torch.equal(trunk.last_layer.weight, before)
