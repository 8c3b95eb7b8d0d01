"""The checkpoint folders that Ray Train writes for a run."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs
from ray.train import Checkpoint

from detector_core import storage
from detector_core.errors import BrokenArtifact
from detector_core.training import checkpoint
from detector_core.training.checkpoint import Progress
from jobs.common.cli import say
from jobs.run.request import RunRequest

PREFIX = "checkpoint_"


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint folder, local or on an object store."""

    filesystem: fs.FileSystem
    path: str


def find(filesystem: fs.FileSystem, run: str) -> list[CheckpointFolder]:
    """The checkpoint folders of a run, the one with the most progress first.

    The names, which are dates, do not give this order, because a clock may have jumped.
    """
    infos = filesystem.get_file_info(fs.FileSelector(run, allow_not_found=True))
    paths = [info.path for info in infos if info.base_name.startswith(PREFIX) and not info.is_file]
    folders = [CheckpointFolder(filesystem, path) for path in sorted(paths, reverse=True)]
    return sorted(folders, key=_position, reverse=True)


def _position(folder: CheckpointFolder) -> tuple[float, float]:
    """Epochs and steps of a checkpoint; infinite if its file is damaged, so that it is tried, and reported, first."""
    try:
        with folder.filesystem.open_input_stream(f"{folder.path}/{checkpoint.CHECKPOINT}") as stream:
            values = json.loads(stream.read())
        return values["epoch"], values["step"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return math.inf, math.inf


@contextmanager
def open_checkpoint(
    folder: CheckpointFolder, note: Callable[[str], object] = say
) -> Iterator[tuple[Progress | None, Path]]:
    """Fetches a checkpoint and verifies it.

    Yields:
        its progress, or None (with a warning) if it is damaged; and its local folder.
    """
    with Checkpoint(path=folder.path, filesystem=folder.filesystem).as_directory() as local:
        try:
            progress = checkpoint.read(Path(local))
        except BrokenArtifact as error:
            note(f"skipping a damaged checkpoint: {error}")
            progress = None
        yield progress, Path(local)


def delete_all(request: RunRequest) -> None:
    """Deletes the checkpoints of a finished run, which take several times the space of its model."""
    for folder in find(*storage.locate(request.folder)):
        folder.filesystem.delete_dir(folder.path)
