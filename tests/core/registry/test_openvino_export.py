from pathlib import Path

import numpy as np
import pytest
import torch

from detector_core.config import PreprocessSpec
from detector_core.data import manifest
from detector_core.errors import BadData
from detector_core.registry import openvino_export
from detector_core.registry.engines import OpenVinoEngine, TorchEngine
from tests.support.models import SIZE


def squares(count: int, size: int = SIZE) -> np.ndarray:
    """Images of noise."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_exported_graph_contains_the_preprocessing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)
    ).eval()
    preprocess = PreprocessSpec(image_size=20, mean=(0.1, 0.5, 0.9), std=(0.2, 0.4, 0.8), channels="BGR")
    engine = OpenVinoEngine(openvino_export.export(network, preprocess, tmp_path), "fp32", threads=1)
    for count in (1, 3, 2):
        assert engine(squares(count, 20)) == pytest.approx(
            TorchEngine(network, preprocess)(squares(count, 20)), abs=1e-5
        )


def test_int8_needs_undamaged_images_of_both_classes(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows, preprocess = data.split("train"), PreprocessSpec(image_size=24)
    assert openvino_export.quantization_images(rows, data.root, preprocess).shape == (16, 24, 24, 3)
    with pytest.raises(BadData, match="the training split has no fake image"):
        openvino_export.quantization_images(rows.query("label == 'real'"), data.root, preprocess)
    damaged = Path(data.root) / rows["path"][3]
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(BadData, match=f"{damaged}: .*damaged"):
        openvino_export.quantization_images(rows, data.root, preprocess)


def test_the_images_of_int8_are_limited_per_class(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_export, "QUANTIZATION_IMAGES_PER_CLASS", 5)
    data, preprocess = manifest.load(str(tiny_dataset)), PreprocessSpec(image_size=SIZE)
    assert openvino_export.quantization_images(data.split("train"), data.root, preprocess).shape == (10, SIZE, SIZE, 3)
