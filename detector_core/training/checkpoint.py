"""A training run at rest: everything that ``fit`` needs to go on, and the best weights so far.

::

    CHECKPOINT/
      state.pt             weights and optimizer now, read with weights_only
      best.safetensors     weights of the epoch with the lowest validation loss, once there is one
      checkpoint.json      position, history, spec, sha256 of the files above; written last

There is no random state to keep: every draw is derived from (seed, epoch, position).
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from detector_core.errors import BrokenArtifact, first_line
from detector_core.networks.artifacts import sha256_of

FORMAT = 1
STATE, BEST, CHECKPOINT = "state.pt", "best.safetensors", "checkpoint.json"


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; everything that ``checkpoint.json`` says beside the checksums.

    Attributes:
        spec: of the run, as a plain dict.
        fingerprint: of the data set.
        epoch, step: epochs finished, and steps finished in the one after them.
        sums: loss, correct and counted images and seconds of the unfinished epoch.
        history: one row an epoch.
        best_epoch: index into ``history`` of the lowest validation loss; -1 before the first epoch ends.
        broken: paths and reasons of training images that were left out.
    """

    spec: dict[str, Any]
    fingerprint: str
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "correct", "images", "seconds"), 0.0))
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    broken_images: list[str] = field(default_factory=list)


def save(folder: Path, progress: Progress, state: Mapping[str, Any], best: Mapping[str, torch.Tensor] | None) -> None:
    """Writes a checkpoint into an empty local folder; ``checkpoint.json`` last."""
    torch.save(dict(state), folder / STATE)
    if best is not None:
        safetensors.torch.save_file(dict(best), folder / BEST)
    names = [STATE] if best is None else [STATE, BEST]
    values = {"format": FORMAT, "sha256": {name: sha256_of(folder / name) for name in names}, **vars(progress)}
    (folder / CHECKPOINT).write_text(json.dumps(values))


def read(folder: Path) -> Progress:
    """Where the run stands, after checking that every file is whole.

    Raises:
        BrokenArtifact: a file is missing or changed.
    """
    try:
        values = json.loads((folder / CHECKPOINT).read_text())
        checksums = values.pop("sha256")
        if values.pop("format") != FORMAT:
            raise BrokenArtifact(f"{folder} is a checkpoint of another format")
        for name, expected in checksums.items():
            if sha256_of(folder / name) != expected:
                raise BrokenArtifact(f"{folder / name} is damaged: its sha256 is not the one in {CHECKPOINT}")
        return Progress(**values)
    except FileNotFoundError as error:
        raise BrokenArtifact(f"{error.filename} is missing: the checkpoint is not complete") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenArtifact(f"{folder / CHECKPOINT} is damaged: {error}") from None


def read_state(folder: Path) -> dict[str, Any]:
    """Weights and optimizer state, on the CPU. Raises BrokenArtifact."""
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, OSError, EOFError) as error:
        raise BrokenArtifact(f"{folder / STATE} cannot be read: {first_line(error)}") from None
    return state


def read_best(folder: Path) -> dict[str, torch.Tensor] | None:
    """The best weights so far, or None before the first epoch ended."""
    return safetensors.torch.load_file(folder / BEST) if (folder / BEST).exists() else None
