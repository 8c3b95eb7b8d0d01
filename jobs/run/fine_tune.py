"""Fine-tunes the live network for a round of relearning, as a run of Ray Train below the feedback folder.

::

    FEEDBACK/round-runs/
      start.safetensors   the weights that it starts from
      dataset/            the data set of the round: paths, labels and hashes, no images
      NAME/               the run, named by all that determines it

A round that was killed finds the run of the same tags and continues it from its last checkpoint; of other tags, the run
is deleted. Nothing is left of it once it has finished.
"""

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch

from detector_core import storage
from detector_core.data import feedback
from detector_core.data.manifest import Manifest
from detector_core.errors import TrainingFailed
from detector_core.networks import artifacts
from detector_core.training import fine_tuning
from detector_core.training.round_inputs import LiveModel, RoundImages
from jobs.common.cluster import check_resources
from jobs.run import launch, resource_flags
from jobs.run.board import ProgressBoard, driver_node_options
from jobs.run.progress import Watcher, stopped_by_signal
from jobs.run.request import RunRequest, complete_model, model_folder, write_request

START, DATASET = "start.safetensors", "dataset"
CHECKPOINT_EVERY = 20


def fine_tune(
    live: LiveModel, images: RoundImages, data: Manifest, folder: str | Path, *, workers: int, gpu: bool, seed: int
) -> dict[str, torch.Tensor]:
    """The fine-tuned weights. Call inside :func:`jobs.common.cluster.connect`.

    Args:
        folder: the feedback folder.
        workers: Ray Train workers, which share the cores of the cluster.
        gpu: whether each has a GPU.

    Raises:
        InsufficientResources: the cluster has fewer cores or GPUs.
        TrainingFailed: the run failed; the next round begins another one.
        KeyboardInterrupt: the run was stopped, with a checkpoint.
    """
    request, data = _prepare(live, images, data, Path(folder).absolute() / feedback.ROUND_RUNS, seed)
    if complete_model(request.folder) is None:
        cpus = resource_flags.fair_share(workers)
        check_resources(cpus=workers * cpus, gpus=workers * gpu, purpose=f"fine-tuning with {workers} workers")
        _launch(RunRequest(**{**vars(request), "workers": workers, "cpus": cpus, "gpu": gpu}), data)
    weights = safetensors.torch.load_file(Path(model_folder(request.folder)) / artifacts.WEIGHTS)
    storage.delete_folder(request.storage)
    return weights


def _prepare(
    live: LiveModel, images: RoundImages, data: Manifest, runs: Path, seed: int
) -> tuple[RunRequest, Manifest]:
    """Writes what the run reads, and deletes runs of other rounds; the request still lacks its resources."""
    runs.mkdir(mode=0o700, exist_ok=True)
    fine_tuning.save_start(runs / START, live, images, seed=seed)
    round_data = fine_tuning.save_data_set(str(runs / DATASET), images, data, seed)
    spec = fine_tuning.settings(live.artifact.spec, str(runs / START), seed).to_dict()
    content = json.dumps([live.artifact.weights_sha256, round_data.fingerprint, spec], sort_keys=True)
    name = f"network-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    for path in runs.iterdir():
        if path.name not in (START, DATASET, name):
            storage.delete_folder(path)
    request = RunRequest(
        name=name, spec=spec, data=str(runs / DATASET), storage=str(runs), checkpoint_every=CHECKPOINT_EVERY
    )
    return request, round_data


def _launch(request: RunRequest, data: Manifest) -> None:
    write_request(request, data.fingerprint)
    board = ProgressBoard.options(**driver_node_options()).remote()  # type: ignore[attr-defined]
    with Watcher(board, on_epoch=lambda _: None), stopped_by_signal(board):
        try:
            launch.launch(request, board)
        except launch.RunStopped:
            raise KeyboardInterrupt from None
        except TrainingFailed:
            storage.delete_folder(request.storage)
            raise
