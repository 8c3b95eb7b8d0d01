"""detector_core.networks.artifacts: a model folder that is not whole is named, with what is wrong in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from detector_core.errors import BrokenArtifact
from detector_core.networks import artifacts
from detector_core.networks.artifacts import ARTIFACT, WEIGHTS
from tests.support.models import save_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model; read only."""
    return save_model(tmp_path_factory.mktemp("artifacts") / "model")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A model that a test may break."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change(model: Path, **values: Any) -> None:
    """Fields of its artifact.json, None to take one out."""
    changed = json.loads((model / ARTIFACT).read_text()) | values
    (model / ARTIFACT).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def weights(model: Path, data: bytes) -> None:
    """Another file of weights, with its checksum."""
    (model / WEIGHTS).write_bytes(data)
    change(model, weights_sha256=artifacts.sha256_of(model / WEIGHTS))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", r"has format \[1\]: this version reads 1"),
        ('{"format": 2}', "has format 2: this version reads 1"),
        ('{"format": 1}', "is not complete: it has no 'spec'"),
        ('{"format": 1, "spec": 3}', "is not complete: RunSpec is 3"),
        ('{"format": 1, "spec": {"variant": "resnet68"}}', "is not complete: RunSpec: .* missing .*'model'"),
    ],
)
def test_what_is_no_artifact_is_named_with_its_file(model: Path, text: str, says: str) -> None:
    (model / ARTIFACT).write_text(text)
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} {says}"):
        artifacts.read(model)


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"run": None}, "missing .*'run'"), ({"colour": "red"}, "unexpected .*'colour'")],
)
def test_an_artifact_of_other_fields_is_not_complete(model: Path, fields: dict[str, Any], says: str) -> None:
    change(model, **fields)
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} is not complete: .*{says}"):
        artifacts.read(model)


def test_a_folder_without_an_artifact_is_not_a_model(model: Path) -> None:
    (model / ARTIFACT).unlink()
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} is missing: the folder is not a complete model"):
        artifacts.read(model)
    with pytest.raises(BrokenArtifact, match=f"{model} holds no {ARTIFACT}: .*its run has not finished"):
        artifacts.load(model)


def test_weights_that_are_gone_or_changed_are_named(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"changed")
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} was changed: sha256 .*, {ARTIFACT} says"):
        artifacts.load(model)
    (model / WEIGHTS).unlink()
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} is missing"):
        artifacts.load(model)


@pytest.mark.parametrize("data", [b"no tensors", safetensors.torch.save({"conv1.weight": torch.zeros(3)})])
def test_weights_that_fit_another_network_are_named_in_one_line(model: Path, data: bytes) -> None:
    weights(model, data)
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} does not fit the network: .") as error:
        artifacts.load(model)
    assert "\n" not in str(error.value)
