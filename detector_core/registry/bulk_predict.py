"""Verdicts about files of images without labels, as a service would give them about each image as a whole.

Left out: who shares the files out (``jobs.predict``), and looking for faces.
"""

import functools
from typing import Any

import pandas as pd

from detector_core import storage
from detector_core.errors import BadData, BadImage
from detector_core.images.preprocess import decode, square
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor

BATCH = 32


def predict_files(where: str, device: str, root: str, paths: list[str]) -> pd.DataFrame:
    """A row an image, in order: path, verdict, p_fake, logit, and error for one that cannot be read.

    Args:
        where: a version of a registry, folder or URI.
        root: what the paths are relative to, folder or URI.

    Raises:
        BrokenArtifact: the version is not a whole model.
        BadData: the store or the disk fails.
    """
    predictor = _predictor(where, device)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        squares, read = [], []
        for path in paths[start : start + BATCH]:
            row = {"path": path, "verdict": None, "p_fake": float("nan"), "logit": float("nan"), "error": None}
            rows.append(row)
            where_it_is = storage.join(root, path)
            try:
                image = decode(storage.read_bytes(where_it_is))
            except BadImage as error:
                row["error"] = str(error)
                continue
            except (FileNotFoundError, PermissionError) as error:  # gone since it was listed, or not for us
                row["error"] = f"the file cannot be opened: {error.strerror or error}"
                continue
            except OSError as error:
                raise BadData(f"{where_it_is} cannot be read ({error}): run the same command again to go on") from None
            squares.append(square(image, predictor.info.preprocess))
            read.append(row)
        for row, found in zip(read, predictor.predict(squares), strict=True):
            row.update(verdict=found.verdict, p_fake=found.p_fake, logit=found.logit)
    return pd.DataFrame(rows)


@functools.lru_cache(maxsize=1)
def _predictor(where: str, device: str) -> Predictor:
    """Loaded once in a process, which judges many files."""
    return Predictor(versions.fetch(where), batch_size=BATCH, device=device, threads=1)
