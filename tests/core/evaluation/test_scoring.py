from pathlib import Path

import pytest
import torch
from scipy.special import expit
from torch import nn

from detector_core import storage
from detector_core.config import PreprocessSpec, RunSpec
from detector_core.data import manifest
from detector_core.errors import BadImage, BrokenArtifact
from detector_core.evaluation import scoring
from detector_core.images.preprocess import decode, to_input
from detector_core.networks import factory


@pytest.fixture
def network(tiny_spec: RunSpec) -> nn.Module:
    torch.manual_seed(0)
    return factory.build(tiny_spec.model)


def test_scores_match_the_serving_path_for_any_batch_size(
    network: nn.Module, tiny_spec: RunSpec, tiny_dataset: Path
) -> None:
    data = manifest.load(str(tiny_dataset))
    rows, progress = data.split("test"), []
    scores = scoring.score(network, rows, data.root, tiny_spec.preprocess, batch_size=5, progress=progress.append)
    assert progress == [5, 5, 5, 1]
    assert list(scores.columns) == ["path", "label", "logit", "p_fake"]
    assert scores["path"].tolist() == rows["path"].tolist()
    some = scoring.score(network, rows.iloc[3:9], data.root, tiny_spec.preprocess, batch_size=64, threads=3)
    assert some["logit"].to_numpy() == pytest.approx(scores["logit"][3:9].to_numpy(), abs=1e-5)
    with torch.inference_mode():
        for path, logit in zip(scores["path"], scores["logit"], strict=True):
            x_CHW = to_input(decode(storage.read_bytes(storage.join(data.root, path))), tiny_spec.preprocess)
            assert network.eval()(x_CHW[None]).item() == pytest.approx(logit, abs=1e-5)
    assert scores["p_fake"].to_numpy() == pytest.approx(expit(scores["logit"].to_numpy(dtype="float64")))


def test_a_damaged_or_missing_image_is_named(network: nn.Module, tiny_spec: RunSpec, writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("test")
    victim = Path(data.root) / rows["path"][2]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(BadImage, match=str(victim)):
        scoring.score(network, rows, data.root, tiny_spec.preprocess)
    victim.unlink()
    with pytest.raises(BadImage, match=f"{victim}: "):
        scoring.score(network, rows, data.root, tiny_spec.preprocess)


def test_a_network_that_returns_nan_is_an_error(tiny_dataset: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return x_BCHW.flatten(1)[:, :1] * float("nan")

    data = manifest.load(str(tiny_dataset))
    with pytest.raises(BrokenArtifact, match="the network returns nan for "):
        scoring.score(Broken(), data.split("test"), data.root, PreprocessSpec(image_size=32))
