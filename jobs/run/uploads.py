"""Checkpoints on their way from rank 0 to the run's folder, and the reports of all workers that belong to them."""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode

from detector_core.training.step import TrainState

POLL_S = 0.05


class CheckpointUploads:
    """Reports metrics and checkpoints to Ray Train, on every worker.

    On an object store a checkpoint is uploaded while training goes on. There is at most one on its way: the next one
    waits for it, and :meth:`wait` for the last one. If an upload fails, Ray ends the worker as if it had raised the
    error.

    Args:
        rank: of this worker; rank 0 writes the checkpoints.
        in_background: whether the run's folder is on an object store.
    """

    def __init__(self, rank: int, *, in_background: bool) -> None:
        self._rank, self._in_background = rank, in_background
        self._uploading: Path | None = None
        self._folder = contextlib.ExitStack()

    def save(self, state: TrainState, metrics: dict[str, Any], *, wait: bool = False) -> None:
        """Reports metrics with a checkpoint of the state. Call it on every worker in the same step.

        Args:
            wait: return only once the checkpoint is in the run's folder.
        """
        if self._rank != 0:
            ray.train.report(metrics)
            return
        self.wait()
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="checkpoint-")))
            state.save(scratch)
            in_background = self._in_background and not wait
            ray.train.report(
                metrics,
                checkpoint=Checkpoint.from_directory(scratch),
                checkpoint_upload_mode=CheckpointUploadMode.ASYNC if in_background else CheckpointUploadMode.SYNC,
                delete_local_checkpoint_after_upload=in_background,
            )
            if in_background:
                self._uploading, self._folder = scratch, stack.pop_all()

    def wait(self) -> None:
        """Returns once the checkpoint that is on its way is in the run's folder: Ray then deletes the local one."""
        while self._uploading and self._uploading.exists():
            time.sleep(POLL_S)
        self._uploading = None
        with contextlib.suppress(FileNotFoundError):
            self._folder.close()
