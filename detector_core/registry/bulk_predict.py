"""Predictions for files of unlabeled images, identical to those of the service for whole images.

Not in this module: distributing the files (``jobs.predict``), and looking for faces.
"""

import functools
from typing import Any

import pandas as pd

from detector_core import storage
from detector_core.errors import BadData, BadImage
from detector_core.images.decode import Pixels
from detector_core.images.preprocess import decode, square
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor

BATCH = 32


def predict_files(version: str, device: str, root: str, paths: list[str]) -> pd.DataFrame:
    """Predicts images; a file that cannot be read gets an error instead of a verdict.

    Args:
        version: folder or URI of a version of a registry.
        root: folder or URI that the paths are relative to.

    Returns:
        One row per path, in order: path, verdict, p_fake, logit, error.

    Raises:
        BrokenArtifact: the version is incomplete or damaged.
        BadData: the storage fails.
    """
    predictor = _load_predictor(version, device)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        squares, readable = [], []
        for path in paths[start : start + BATCH]:
            row = {"path": path, "verdict": None, "p_fake": float("nan"), "logit": float("nan"), "error": None}
            rows.append(row)
            image = _read_image(storage.join(root, path))
            if isinstance(image, str):
                row["error"] = image
            else:
                squares.append(square(image, predictor.info.preprocess))
                readable.append(row)
        for row, prediction in zip(readable, predictor.predict(squares), strict=True):
            row.update(verdict=prediction.verdict, p_fake=prediction.p_fake, logit=prediction.logit)
    return pd.DataFrame(rows)


def _read_image(file: str) -> Pixels | str:
    """The image, or the reason why it cannot be read. Raises BadData if the storage fails."""
    try:
        return decode(storage.read_bytes(file))
    except BadImage as error:
        return str(error)
    except (FileNotFoundError, PermissionError) as error:  # deleted since it was listed, or not readable for us
        return f"the file cannot be opened: {error.strerror or error}"
    except OSError as error:
        raise BadData(f"{file} cannot be read ({error}): run the same command again to continue") from None


@functools.lru_cache(maxsize=1)
def _load_predictor(version: str, device: str) -> Predictor:
    """Loaded once per process, which predicts many chunks of files."""
    return Predictor(versions.fetch(version), batch_size=BATCH, device=device, threads=1)
