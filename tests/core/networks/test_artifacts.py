"""detector_core.networks.artifacts: what is recorded of a model, and how a broken model folder is refused."""

import dataclasses
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from detector_core.errors import BrokenArtifact
from detector_core.networks import artifacts
from detector_core.networks.artifacts import ARTIFACT, WEIGHTS, git_commit
from tests.support.models import save_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that no test changes."""
    return save_model(tmp_path_factory.mktemp("artifacts") / "model")


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A model folder that the test may damage."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(model: Path, **values: Any) -> None:
    """Changes fields of artifact.json; None removes one."""
    changed = json.loads((model / ARTIFACT).read_text()) | values
    (model / ARTIFACT).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def replace_weights(model: Path, data: bytes) -> None:
    """Replaces the file of weights and updates the checksum."""
    (model / WEIGHTS).write_bytes(data)
    change(model, weights_sha256=artifacts.sha256_of(model / WEIGHTS))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_a_checkout_is_recorded_and_whether_files_were_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    git_commit.cache_clear()
    (tmp_path / "code.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "below").mkdir()
    assert git_commit(tmp_path / "below") is None
    assert git_commit(tmp_path) is None, "a repository without commits"
    git_commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None, "git is not installed"


def test_versions_of_the_caller_are_added_to_those_of_the_libraries(original: Path, tmp_path: Path) -> None:
    artifact = dataclasses.replace(artifacts.read(original), versions={"ray": "1.2.3"})
    network, _ = artifacts.load(original)
    saved = artifacts.save(tmp_path / "copy", network.state_dict(), artifact)
    assert saved == artifacts.read(tmp_path / "copy")
    assert saved.versions["ray"] == "1.2.3"
    assert saved.versions["torch"] == importlib.metadata.version("torch")
    assert saved.git_commit == git_commit()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[2]", r"has format \[2\], but this version reads 2"),
        ('{"format": 1}', "has format 1, but this version reads 2: train the model again"),
        ('{"format": 2}', "is incomplete: it has no 'spec'"),
        ('{"format": 2, "spec": 3}', "is not valid: RunSpec is 3"),
        ('{"format": 2, "spec": {"variant": "resnet68"}}', "is not valid: RunSpec: .* missing .*'model'"),
        ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("[" + " " * 2**24 + "]", "is not valid JSON: it has more than 16,777,216 bytes"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_is_no_artifact_is_refused(model: Path, text: str, message: str) -> None:
    (model / ARTIFACT).write_text(text)
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} {message}"):
        artifacts.read(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"run": None}, "missing .*'run'"), ({"color": "red"}, "unexpected .*'color'")],
)
def test_an_artifact_with_missing_or_unknown_fields_is_refused(
    model: Path, fields: dict[str, Any], message: str
) -> None:
    change(model, **fields)
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} is not valid: .*{message}"):
        artifacts.read(model)


def test_a_folder_without_an_artifact_is_not_a_model(model: Path) -> None:
    (model / ARTIFACT).unlink()
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} is missing: the folder is not a complete model"):
        artifacts.read(model)
    with pytest.raises(BrokenArtifact, match=f"{model} has no {ARTIFACT}: .*its run has not finished"):
        artifacts.load(model)


def test_missing_or_changed_weights_are_refused(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"changed")
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} was changed: its sha256 is .*, but .* in {ARTIFACT}"):
        artifacts.load(model)
    (model / WEIGHTS).unlink()
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} is missing"):
        artifacts.load(model)


@pytest.mark.parametrize("data", [b"no tensors", safetensors.torch.save({"conv1.weight": torch.zeros(3)})])
def test_weights_of_another_network_are_refused_in_one_line(model: Path, data: bytes) -> None:
    replace_weights(model, data)
    with pytest.raises(BrokenArtifact, match=f"{model / WEIGHTS} does not fit the network: .") as error:
        artifacts.load(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.layout": [3, 4, 10**6, 3]}, "layout is .*: it must be four block counts from 1 to 100"),
        ({"model.layout": [1] * 10**6}, r"layout is \(1, 1, .*\.\.\.: it must be four block counts"),
        ({"preprocess.image_size": 10**6}, "image_size is 1000000: it must be from 1 to 2048 pixels"),
        ({"preprocess.mean": [float("nan")] * 3}, "mean is nan: it must be a finite number"),
        ({"preprocess.std": [float("inf")] * 3}, "std is inf: it must be a finite number"),
        ({"preprocess.std": [10**400] * 3}, "it must be a finite number"),
    ],
    ids=["blocks", "stages", "size", "nan", "inf", "huge"],
)
def test_a_model_from_elsewhere_is_checked_against_bounds(model: Path, fields: dict[str, Any], message: str) -> None:
    spec = json.loads((model / ARTIFACT).read_text())["spec"]
    for name, value in fields.items():
        group, _, field = name.partition(".")
        spec[group][field] = value
    change(model, spec=spec)
    with pytest.raises(BrokenArtifact, match=f"{model / ARTIFACT} is not valid: .*{message}") as error:
        artifacts.load(model)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("fields", [{"weights_sha256": 3}, {"training": "much"}, {"versions": [1]}])
def test_fields_of_another_type_are_refused(model: Path, fields: dict[str, Any]) -> None:
    change(model, **fields)
    with pytest.raises(BrokenArtifact, match=f"is not valid: {next(iter(fields))} must be of type (str|dict)"):
        artifacts.read(model)


def test_a_large_network_without_its_weights_takes_no_memory(model: Path) -> None:
    """The largest layout that is allowed has 600 million parameters."""
    spec = json.loads((model / ARTIFACT).read_text())["spec"]
    spec["model"].update(architecture="resnet68", layout=[100, 100, 100, 100])
    change(model, spec=spec)
    code = f"""
import resource
from detector_core.errors import BrokenArtifact
from detector_core.networks import artifacts
import torch, safetensors.torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    artifacts.load({str(model)!r})
except BrokenArtifact as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mebibytes, _, message = done.stdout.partition(" ")
    assert "does not fit the network: " in message
    assert int(mebibytes) < 300
