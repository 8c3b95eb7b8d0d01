"""Fixtures for all tests: tiny seeded data sets, a tiny variant, and the folder of real faces."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

import jobs  # noqa: F401  # sets the variables that Ray reads when it is imported, before any test imports it
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.labels import LABELS
from detector_core.networks.artifacts import sha256_of
from detector_core.networks.variants import spec_for
from jobs.common import loopback
from tests.support.jobs import run_job  # noqa: F401  # a fixture

# The machine may be busy, and every run must see the same examples.
settings.register_profile("patient", deadline=None, derandomize=True)
settings.load_profile("patient")
torch.set_num_threads(1)  # the networks are tiny, and the cores may be busy
WORKERS, WORKER = 4, int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
loopback.PORTS = loopback.PORTS[WORKER % WORKERS :: WORKERS]  # two clusters that start at once choose different ports
LONGEST = (
    "jobs/test_train", "jobs/test_tune", "jobs/test_object_store", "cluster/test_jobs", "jobs/test_reproduce",
    "serve/test_app", "reliability/", "jobs/", "cluster/", "web/", "docs/", "serve/",
)  # fmt: skip
"""The files whose tests take longest. They begin first, so that no worker is left with one when the others are done."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spares the second stage of ``make test`` the import of all files that have no serial test."""
    wanted = config.option.markexpr != "serial" or collection_path.suffix != ".py"
    return None if wanted or "mark.serial" in collection_path.read_text() else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((number for number, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of real faces that DETECTOR_FACES names, in the layout of Kaggle's "140k real and fake faces"."""
    if not (folder := os.environ.get("DETECTOR_FACES")):
        pytest.skip("set DETECTOR_FACES to a folder of real faces in the layout of Kaggle's 140k real and fake faces")
    return Path(folder).resolve(strict=True)


def image_bytes(seed: int, label: str, side: int = 32) -> bytes:
    """A JPEG of colored noise; fakes have vertical stripes, two pixels wide."""
    draw = np.random.default_rng(seed)
    pixels = draw.normal(draw.uniform(90, 160, 3), 25, (side, side, 3))
    if label == "fake":
        pixels += 30 * (-1.0) ** (np.arange(side) // 2)[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def make_dataset(folder: Path, per_class: dict[str, int]) -> Path:
    """A folder of images and the data set prepared from it, written without ``detector_core.data.index``."""
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
    """24 training, 8 validation and 8 test images of each class; do not write to it."""
    return make_dataset(tmp_path_factory.mktemp("tiny"), {"train": 24, "valid": 8, "test": 8})


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 training, 3 validation and 3 test images of each class, for the large networks; do not write to it."""
    return make_dataset(tmp_path_factory.mktemp("small"), {"train": 6, "valid": 3, "test": 3})


@pytest.fixture
def writable_dataset(tmp_path: Path) -> Path:
    """A small data set that a test may change or damage."""
    return make_dataset(tmp_path / "writable", {"train": 8, "valid": 4, "test": 4})


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
            "optim.compute_dtype": "fp32",  # the rounding of bf16 would hide the differences that tests look for
        },
    )


@pytest.fixture
def spec_file(tmp_path: Path, tiny_spec: RunSpec) -> Path:
    """The tiny spec as a JSON file, for ``--spec``."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(tiny_spec.to_dict()))
    return path
