"""Scores the images of data sets with models on several Ray workers, which outlive each data set and each model."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import ray
import ray.exceptions
import torch
from ray.util import ActorPool
from tqdm import tqdm

from detector_core import gpu as gpu_check
from detector_core.errors import InsufficientResources
from detector_core.evaluation import scoring
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from jobs.common.cluster import check_resources, original_error

BATCH = 64
"""Images per forward pass: fixed, so that the number of workers does not change which images share a batch."""
BATCHES_PER_TASK = {"CPU": 1, "GPU": 16}
RETRIES = 2
Score = Callable[..., pd.DataFrame]


class _ScoringWorker:
    """An actor with one copy of the model that it used last."""

    def __init__(self, device: str, threads: int) -> None:
        self.options = {"batch_size": BATCH, "device": device, "threads": threads}
        self.model_folder = ""
        self.loaded: tuple[torch.nn.Module, Artifact] | None = None

    def score(
        self, start: int, rows: pd.DataFrame, model_folder: str, root: str, scorer: Score
    ) -> tuple[int, pd.DataFrame]:
        if self.options["device"] == "cuda":
            gpu_check.check()
        if self.loaded is None or model_folder != self.model_folder:
            self.loaded = None  # before the next one is loaded: never two in memory
            self.loaded, self.model_folder = artifacts.load(model_folder), model_folder
        model, artifact = self.loaded
        return start, scorer(model, rows, root, artifact.spec.preprocess, **self.options)


class ScoringWorkers:
    """Workers that score images until the ``with`` block ends. Use inside :func:`jobs.common.cluster.connect`.

    A worker takes seconds to start, most of them for imports, so a job that scores several models or data sets uses the
    same ones for all. They hold their cores meanwhile.

    Args:
        workers: None takes one per core, or per GPU if ``gpu``.

    Raises:
        InsufficientResources: there are more workers than cores or GPUs.
    """

    def __init__(self, *, workers: int | None, gpu: bool) -> None:
        unit = "GPU" if gpu else "CPU"
        available = ray.cluster_resources()
        self.workers = workers or max(1, int(available.get(unit, 1)))
        # With a GPU, all cores decode images for it; without one, a worker decodes on the core that it computes on.
        cpus = max(1, int(available.get("CPU", 1)) // self.workers) if gpu else 1
        purpose = f"scoring with {self.workers} workers"
        check_resources(cpus=self.workers * cpus, gpus=self.workers * gpu, purpose=purpose)
        self.chunk_images = BATCH * BATCHES_PER_TASK[unit]
        self.options = {"num_cpus": cpus, "num_gpus": int(gpu), "max_restarts": RETRIES, "max_task_retries": RETRIES}
        self.arguments = ("cuda" if gpu else "cpu", cpus)
        self.actors: list[Any] = []

    def __enter__(self) -> "ScoringWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def score(
        self, model_folder: str, root: str, rows: pd.DataFrame, title: str, scorer: Score = scoring.score
    ) -> pd.DataFrame:
        """Scores images, and shows a progress bar on stderr; the result is in the order of ``rows``.

        Args:
            model_folder: folder or URI of the model, which each worker loads once.
            root: folder or URI that the paths of the images are relative to.
            rows: of a manifest, columns ``path`` and ``label``.
            title: of the progress bar.
            scorer: :func:`detector_core.evaluation.scoring.score` or
                :func:`detector_core.evaluation.robustness.score_grid`.

        Raises:
            DetectorError: an image is broken, or the weights were changed.
            InsufficientResources: a worker was lost more often than RETRIES.
        """
        chunks = [
            (start, rows.iloc[start : start + self.chunk_images]) for start in range(0, len(rows), self.chunk_images)
        ]
        actor = ray.remote(_ScoringWorker).options(**self.options)
        missing = min(self.workers, len(chunks)) - len(self.actors)
        self.actors += [actor.remote(*self.arguments) for _ in range(missing)]
        scored: dict[int, pd.DataFrame] = {}
        try:
            with tqdm(total=len(rows), desc=title, unit=" images") as bar:
                results = ActorPool(self.actors).map_unordered(
                    lambda worker, chunk: worker.score.remote(*chunk, model_folder, root, scorer), chunks
                )
                for start, scores in results:
                    scored[start] = scores
                    bar.update(len(scores))
        except ray.exceptions.RayTaskError as error:
            raise original_error(error) from None
        except ray.exceptions.RayActorError:
            raise InsufficientResources(
                f"a scoring worker was lost {RETRIES + 1} times (killed, or out of memory): use fewer --workers"
            ) from None
        return pd.concat([scored[start] for start, _ in chunks], ignore_index=True)
