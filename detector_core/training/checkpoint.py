"""Checkpoints of a training run: everything that ``fit`` needs to continue it, and the best weights so far.

::

    CHECKPOINT/
      state.pt             current weights and optimizer state, read with weights_only
      best.safetensors     weights of the epoch with the lowest validation loss; missing during the first epoch
      checkpoint.json      Progress and the sha256 of the files above; written last

No random state is saved: every random number is derived from (seed, epoch, position).
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

FORMAT = 2
STATE, BEST, CHECKPOINT = "state.pt", "best.safetensors", "checkpoint.json"


@dataclass(kw_only=True)
class Progress:
    """How far a run has come: the content of ``checkpoint.json`` apart from the checksums.

    Attributes:
        spec: the RunSpec as a plain dict.
        fingerprint: of the data set.
        epoch, step: finished epochs, and finished steps of the current epoch.
        sums: totals over the finished steps of the current epoch: loss, correct predictions, images and seconds.
        history: the report of each finished epoch (:class:`detector_core.training.loop.EpochReport`) as a dict.
        best_epoch: index into ``history`` of the lowest validation loss; -1 before the first epoch ends.
        broken_images: path and reason of each training image that was left out.
        environments: where the run was computed (:func:`detector_core.training.loop.environment`), on the worker of
            rank 0; more than one if it was resumed on another kind of machine.
    """

    spec: dict[str, Any]
    fingerprint: str
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "correct", "images", "seconds"), 0.0))
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    broken_images: list[str] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)


def save(folder: Path, progress: Progress, state: Mapping[str, Any], best: Mapping[str, torch.Tensor] | None) -> None:
    """Writes a checkpoint into an empty local folder, ``checkpoint.json`` last."""
    torch.save(dict(state), folder / STATE)
    if best is not None:
        safetensors.torch.save_file(dict(best), folder / BEST)
    names = [STATE] if best is None else [STATE, BEST]
    values = {"format": FORMAT, "sha256": {name: sha256_of(folder / name) for name in names}, **vars(progress)}
    (folder / CHECKPOINT).write_text(json.dumps(values))


def read(folder: Path) -> Progress:
    """Reads ``checkpoint.json`` and verifies the checksum of every file.

    Raises:
        BrokenArtifact: a file is missing or damaged.
    """
    try:
        values = json.loads((folder / CHECKPOINT).read_text())
        checksums = values.pop("sha256")
        if values.pop("format") != FORMAT:
            raise BrokenArtifact(f"{folder} is a checkpoint of another format: it was written by another version")
        for name, expected in checksums.items():
            if sha256_of(folder / name) != expected:
                raise BrokenArtifact(f"{folder / name} is damaged: its sha256 differs from the one in {CHECKPOINT}")
        return Progress(**values)
    except FileNotFoundError as error:
        raise BrokenArtifact(f"{error.filename} is missing: the checkpoint is incomplete") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenArtifact(f"{folder / CHECKPOINT} is damaged: {error}") from None


def read_state(folder: Path) -> dict[str, Any]:
    """Reads weights and optimizer state onto the CPU. Raises BrokenArtifact."""
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, OSError, EOFError) as error:
        raise BrokenArtifact(f"{folder / STATE} cannot be read: {first_line(error)}") from None
    return state


def read_best(folder: Path) -> dict[str, torch.Tensor] | None:
    """Reads the best weights so far; None if no epoch has finished."""
    return safetensors.torch.load_file(folder / BEST) if (folder / BEST).exists() else None
