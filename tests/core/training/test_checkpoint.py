"""detector_core.training.checkpoint: what is saved is read back, and a damaged checkpoint is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detector_core.errors import BrokenArtifact
from detector_core.training import checkpoint
from detector_core.training.checkpoint import BEST, CHECKPOINT, STATE, Progress

TENSORS = {"weight": torch.arange(3.0)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    checkpoint.save(tmp_path, Progress(spec={"seed": 1}, fingerprint="f", epoch=2, best_epoch=1), TENSORS, TENSORS)
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    """Changes fields of checkpoint.json; None removes one."""
    changed = json.loads((folder / CHECKPOINT).read_text()) | values
    (folder / CHECKPOINT).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def test_a_saved_checkpoint_is_read_back(saved: Path) -> None:
    progress, best = checkpoint.read(saved), checkpoint.read_best(saved)
    assert (progress.spec, progress.fingerprint, progress.epoch, progress.best_epoch) == ({"seed": 1}, "f", 2, 1)
    assert torch.equal(checkpoint.read_state(saved)["weight"], TENSORS["weight"])
    assert best is not None
    assert torch.equal(best["weight"], TENSORS["weight"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 1}, "is a checkpoint of another format"),
        ({"format": None}, f"/{CHECKPOINT} is damaged: 'format'"),
        ({"sha256": None}, f"/{CHECKPOINT} is damaged: 'sha256'"),
        ({"spec": None}, f"/{CHECKPOINT} is damaged: .*'spec'"),
        ({"sha256": {STATE: "0"}}, f"/{STATE} is damaged: its sha256 differs from the one in {CHECKPOINT}"),
        ({"sha256": {"more": "0"}}, "/more is missing: the checkpoint is incomplete"),
    ],
)
def test_an_inconsistent_checkpoint_is_refused(saved: Path, fields: dict[str, Any], message: str) -> None:
    change(saved, **fields)
    with pytest.raises(BrokenArtifact, match=f"{saved} ?{message}"):
        checkpoint.read(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_a_checkpoint_json_of_another_form_is_refused(saved: Path, text: str) -> None:
    (saved / CHECKPOINT).write_text(text)
    with pytest.raises(BrokenArtifact, match=f"{saved / CHECKPOINT} is damaged: ."):
        checkpoint.read(saved)


def test_a_missing_file_is_refused(saved: Path) -> None:
    (saved / BEST).unlink()
    with pytest.raises(BrokenArtifact, match=f"{saved / BEST} is missing"):
        checkpoint.read(saved)
    assert checkpoint.read_best(saved) is None


@pytest.mark.parametrize("length", [None, 0, 300, -40])
def test_a_missing_or_truncated_state_is_refused_in_one_line(saved: Path, length: int | None) -> None:
    complete = (saved / STATE).read_bytes()
    (saved / STATE).unlink()
    if length is not None:
        (saved / STATE).write_bytes(complete[:length])
    with pytest.raises(BrokenArtifact, match=f"{saved / STATE} cannot be read: .") as error:
        checkpoint.read_state(saved)
    assert "\n" not in str(error.value)
