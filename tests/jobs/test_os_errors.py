"""Every job ends with one line that names the file if the system refuses one."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector_core.registry import versions
from tests.conftest import image_bytes
from tests.support.models import save_model
from tests.support.training import arguments

pytestmark = pytest.mark.usefixtures("shared_ray")
CANNOT = "a part of the path is a file, not a folder"


@pytest.fixture
def below_a_file(tmp_path: Path) -> Path:
    """A path that cannot exist, whoever runs the tests."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "out"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


@pytest.fixture
def commands(
    below_a_file: Path, model: Path, tmp_path: Path, tiny_dataset: Path, spec_file: Path
) -> dict[str, list[object]]:
    """A command for each job whose output cannot be written or whose input cannot be read."""
    versions.promote(model, tmp_path / "models")
    for label in ("real", "fake"):
        for number in range(8):
            path = tmp_path / "images" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(number, label))
    training = arguments(spec_file, tiny_dataset, below_a_file, "run")
    return {
        "prepare": [tmp_path / "images", "--out", below_a_file],
        "predict": [tmp_path / "images", "--models", tmp_path / "models", "--out", below_a_file],
        "promote": [model, "--to", below_a_file],
        "train": training,
        "tune": ["timm:test_resnet", "--data", tiny_dataset, "--storage", below_a_file, "--epochs", 1],
        "reproduce": ["--data", tiny_dataset, "--storage", below_a_file, "--init", "none"],
        "demo": ["--work", below_a_file],
        "serve": ["--models", below_a_file],
    }


@pytest.mark.parametrize("verb", ["prepare", "predict", "promote", "train", "tune", "reproduce", "demo", "serve"])
def test_a_job_says_in_one_line_which_path_it_cannot_use(
    verb: str, commands: dict[str, list[object]], below_a_file: Path, run_job: Any
) -> None:
    done = run_job(verb, *commands[verb])
    assert (done.code, done.result) == (1, {})
    assert done.last_message.startswith(f"error: {CANNOT} ({below_a_file.parent}"), done.messages
    assert "Traceback" not in done.messages


def test_an_error_in_a_worker_of_ray_is_one_line_too(model: Path, tiny_dataset: Path, run_job: Any) -> None:
    weights = model / "model.safetensors"
    weights.unlink()
    weights.mkdir()
    done = run_job("evaluate", model, "--data", tiny_dataset, "--workers", 1)
    assert done.last_message.startswith(f"error: a folder is where a file should be ({weights}"), done.messages
    assert "Traceback" not in done.messages
    assert json.loads((model / "artifact.json").read_text())["run"] == "tiny"
