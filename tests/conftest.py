"""A tiny seeded data set and a tiny variant, made once for all tests."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

import jobs  # noqa: F401  # sets what Ray reads when it is imported, before any test imports it
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.labels import LABELS
from detector_core.networks.artifacts import sha256_of
from detector_core.networks.variants import spec_for

# The machine may be busy, and each run is to see the same examples.
settings.register_profile("patient", deadline=None, derandomize=True)
settings.load_profile("patient")
torch.set_num_threads(1)  # the networks are tiny, and the cores may be busy
FACES = Path(__file__).parents[1].parent / "shared" / "data" / "faces"
ALONE = (
    "reliability/test_faults.py",
    "reliability/test_soak.py",
    "serve/test_app.py",
    "serve/test_load.py",
    "serve/test_operators.py",
)
"""Tests of what holds under load or after a fault: with nothing beside them, which would be a load or a fault too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks them; ``make test`` runs all others in parallel first."""
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).as_posix()
        if place.startswith(ALONE):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def faces() -> Path:
    """2,200 real images in Kaggle's layout, where they lie beside the project."""
    if not FACES.exists():
        pytest.skip("the folder shared/data/faces is not beside the project")
    return FACES


def image_bytes(seed: int, label: str, side: int = 32) -> bytes:
    """A JPEG of coloured noise; a fake one has stripes of two pixels on it."""
    draw = np.random.default_rng(seed)
    pixels = draw.normal(draw.uniform(90, 160, 3), 25, (side, side, 3))
    if label == "fake":
        pixels += 30 * (-1.0) ** (np.arange(side) // 2)[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def make_dataset(folder: Path, per_class: dict[str, int]) -> Path:
    """Images and a prepared data set beside them, without going through ``index``."""
    rows = []
    for number, (split, count) in enumerate(per_class.items()):
        for label in LABELS:
            for index in range(count):
                path = folder / "images" / split / label / f"{index:03}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image_bytes(1000 * number + 2 * index + (label == "fake"), label))
                rows.append(
                    {
                        "path": path.relative_to(folder / "images").as_posix(),
                        "label": label,
                        "split": split,
                        "sha256": sha256_of(path),
                        "width": 32,
                        "height": 32,
                        "bytes": path.stat().st_size,
                        "jpeg_quality": 95,
                        "phash": "0" * 16,
                    }
                )
    manifest.save(
        str(folder / "dataset"),
        pd.DataFrame(rows),
        root=str(folder / "images"),
        name="tiny",
        generated=True,
        audit={},
    )
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 8 validation and 8 test images of each class; read only."""
    return make_dataset(tmp_path_factory.mktemp("tiny"), {"train": 24, "valid": 8, "test": 8})


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 training, 3 validation and 3 test images of each class, for the large networks; read only."""
    return make_dataset(tmp_path_factory.mktemp("small"), {"train": 6, "valid": 3, "test": 3})


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """A small data set that a test may break."""
    return make_dataset(tmp_path / "own", {"train": 8, "valid": 4, "test": 4})


@pytest.fixture
def tiny_spec() -> RunSpec:
    """A residual network of 0.4 M parameters at 32 px; three epochs of four steps of three micro-batches."""
    return spec_for(
        "timm:test_resnet-cutout",
        {
            "model.init": "none",
            "preprocess.image_size": 32,
            "optim.epochs": 3,
            "optim.batch_size": 12,
            "optim.micro_batch": 4,
            "optim.learning_rate": 0.003,
            "optim.precision": "fp32",  # bf16, where the machine has it, would drown what is compared
        },
    )


@pytest.fixture
def spec_file(tmp_path: Path, tiny_spec: RunSpec) -> Path:
    """The tiny spec as a file for ``--spec``."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(tiny_spec.to_dict()))
    return path
