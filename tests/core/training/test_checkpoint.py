"""detector_core.training.checkpoint: a run at rest comes back whole, and a damaged one is named."""

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
    """A checkpoint that a test may break."""
    checkpoint.save(tmp_path, Progress(spec={"seed": 1}, fingerprint="f", epoch=2, best_epoch=1), TENSORS, TENSORS)
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    """Fields of its checkpoint.json, None to take one out."""
    changed = json.loads((folder / CHECKPOINT).read_text()) | values
    (folder / CHECKPOINT).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def test_a_run_at_rest_comes_back(saved: Path) -> None:
    found, best = checkpoint.read(saved), checkpoint.read_best(saved)
    assert (found.spec, found.fingerprint, found.epoch, found.best_epoch) == ({"seed": 1}, "f", 2, 1)
    assert torch.equal(checkpoint.read_state(saved)["weight"], TENSORS["weight"])
    assert best is not None
    assert torch.equal(best["weight"], TENSORS["weight"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": 2}, "is a checkpoint of another format"),
        ({"format": None}, f"/{CHECKPOINT} is damaged: 'format'"),
        ({"sha256": None}, f"/{CHECKPOINT} is damaged: 'sha256'"),
        ({"spec": None}, f"/{CHECKPOINT} is damaged: .*'spec'"),
        ({"sha256": {STATE: "0"}}, f"/{STATE} is damaged: its sha256 is not the one in {CHECKPOINT}"),
        ({"sha256": {"more": "0"}}, "/more is missing: the checkpoint is not complete"),
    ],
)
def test_what_does_not_agree_is_named(saved: Path, fields: dict[str, Any], says: str) -> None:
    change(saved, **fields)
    with pytest.raises(BrokenArtifact, match=f"{saved} ?{says}"):
        checkpoint.read(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_a_checkpoint_that_says_something_else_is_damaged(saved: Path, text: str) -> None:
    (saved / CHECKPOINT).write_text(text)
    with pytest.raises(BrokenArtifact, match=f"{saved / CHECKPOINT} is damaged: ."):
        checkpoint.read(saved)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / BEST).unlink()
    with pytest.raises(BrokenArtifact, match=f"{saved / BEST} is missing"):
        checkpoint.read(saved)
    assert checkpoint.read_best(saved) is None


@pytest.mark.parametrize("kept", [None, 0, 300, -40])
def test_a_state_that_is_gone_or_torn_is_named_in_one_line(saved: Path, kept: int | None) -> None:
    whole = (saved / STATE).read_bytes()
    (saved / STATE).unlink()
    if kept is not None:
        (saved / STATE).write_bytes(whole[:kept])
    with pytest.raises(BrokenArtifact, match=f"{saved / STATE} cannot be read: .") as error:
        checkpoint.read_state(saved)
    assert "\n" not in str(error.value)
