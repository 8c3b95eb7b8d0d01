"""Model and images -> scores: the logit of each image of a data set, one row per image.

Not in this module: spreading the work over processes (``jobs.common.scoring_workers``), and metrics of the scores
(:mod:`detector_core.evaluation.metrics`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from detector_core.config import PreprocessSpec
from detector_core.data.loading import Batch, ImageDataset, ValidSampler
from detector_core.errors import BadImage, BrokenArtifact
from detector_core.images.preprocess import normalize

SCORES = "scores.parquet"
BATCHES_AHEAD = 2


def score(
    model: torch.nn.Module,
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    *,
    batch_size: int = 64,
    device: str = "cpu",
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Computes the logit of each image of a manifest, in the order of its rows.

    Each image is scored on its own (eval mode, float32), so batch size and workers change the scores by no more than
    floating-point noise.

    Args:
        rows: columns ``path`` and ``label`` are read.
        root: folder or URI that the paths are relative to.
        threads: number of threads that decode, a few batches ahead of the network.
        progress: called with the number of images after each batch.

    Returns:
        Columns path, label, logit (float32), p_fake (float64, uncalibrated).

    Raises:
        BadImage: an image is missing or damaged; names the file.
        BrokenArtifact: the network returns a score that is not finite.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = ImageDataset(rows, root, preprocess)
    logit_N = np.empty(len(rows), dtype=np.float32)
    with torch.inference_mode():
        for batch in load_batches(images, batch_size, threads):
            if batch.broken:
                raise BadImage(batch.broken[0])
            x_BCHW = normalize(batch.pixels_BSSC.to(device), preprocess)
            logit_N[batch.index_B.numpy()] = model(x_BCHW).flatten().float().cpu().numpy()
            if progress:
                progress(len(batch.index_B))
    check_finite(logit_N, images.paths)
    return pd.DataFrame(
        {
            "path": rows["path"].to_numpy(),
            "label": rows["label"].to_numpy(),
            "logit": logit_N,
            "p_fake": expit(logit_N.astype(np.float64)),
        }
    )


def check_finite(logit_N: NDArray[np.float32], names: Sequence[str]) -> None:
    """Raises BrokenArtifact if a score is not finite, and names the first such image."""
    not_finite = np.flatnonzero(~np.isfinite(logit_N))
    if len(not_finite):
        first = not_finite[0]
        raise BrokenArtifact(f"the network returns {logit_N[first]} for {names[first]}: train it again")


def load_batches(images: ImageDataset, batch_size: int, threads: int) -> Iterator[Batch]:
    """Loads all images in order, in batches.

    Threads suffice, because decoding and resizing release the GIL.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[list[Future[Any]]] = deque()
        for keys in ValidSampler(len(images), batch_size):
            pending.append([pool.submit(images.__getitem__, key) for key in keys])
            if len(pending) > BATCHES_AHEAD:
                yield images.collate([sample.result() for sample in pending.popleft()])
        for batch in pending:
            yield images.collate([sample.result() for sample in batch])
