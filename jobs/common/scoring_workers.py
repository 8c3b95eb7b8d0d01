"""Scores the images of a data set with a model on several Ray workers."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import ray
import ray.exceptions
import torch
from ray.util import ActorPool
from tqdm import tqdm

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
    """An actor with one copy of the model."""

    def __init__(self, model_folder: str, root: str, device: str, threads: int) -> None:
        self.model_folder, self.root, self.device, self.threads = model_folder, root, device, threads
        self.loaded: tuple[torch.nn.Module, Artifact] | None = None

    def score(self, start: int, rows: pd.DataFrame, scorer: Score) -> tuple[int, pd.DataFrame]:
        # Loaded here because an error in __init__ reaches the driver as a dead actor, without its message.
        model, artifact = self.loaded = self.loaded or artifacts.load(self.model_folder)
        options = {"batch_size": BATCH, "device": self.device, "threads": self.threads}
        return start, scorer(model, rows, self.root, artifact.spec.preprocess, **options)


class ScoringWorkers:
    """Workers that score images until the ``with`` block ends. Use inside :func:`jobs.common.cluster.connect`.

    Args:
        model_folder: folder or URI of the model, which each worker loads once.
        root: folder or URI that the paths of the images are relative to.
        workers: None takes one per core, or per GPU if ``gpu``.

    Raises:
        InsufficientResources: there are more workers than cores or GPUs.
    """

    def __init__(self, model_folder: str, root: str, *, workers: int | None, gpu: bool) -> None:
        unit = "GPU" if gpu else "CPU"
        available = ray.cluster_resources()
        self.workers = workers or max(1, int(available.get(unit, 1)))
        # With a GPU, all cores decode images for it; without one, a worker decodes on the core that it computes on.
        cpus = max(1, int(available.get("CPU", 1)) // self.workers) if gpu else 1
        purpose = f"scoring with {self.workers} workers"
        check_resources(cpus=self.workers * cpus, gpus=self.workers * gpu, purpose=purpose)
        self.chunk_images = BATCH * BATCHES_PER_TASK[unit]
        self.options = {"num_cpus": cpus, "num_gpus": int(gpu), "max_restarts": RETRIES, "max_task_retries": RETRIES}
        self.arguments = (model_folder, root, "cuda" if gpu else "cpu", cpus)
        self.actors: list[Any] = []

    def __enter__(self) -> "ScoringWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def score(self, rows: pd.DataFrame, title: str, scorer: Score = scoring.score) -> pd.DataFrame:
        """Scores images, and shows a progress bar on stderr; the result is in the order of ``rows``.

        Args:
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
                    lambda worker, chunk: worker.score.remote(*chunk, scorer), chunks
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
