"""Predictions for files of unlabeled images, identical to those of the service for whole images.

Not in this module: distributing the files (``jobs.predict``), and looking for faces.
"""

import functools
from typing import Any

import pandas as pd

from detector_core.data import image_files
from detector_core.errors import BadImage, NotAnImage
from detector_core.evaluation.calibration import NO_FACE
from detector_core.images import quality
from detector_core.images.decode import Pixels, decode_file
from detector_core.images.preprocess import square
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, Predictor

BATCH = 32
COLUMNS = {"path": "str", "verdict": "str", "p_fake": "float64", "logit": "float64", "warnings": "str"}
COLUMNS |= {"error": "str", "left_out": "str"}
FORMAT = 2
"""Of the rows that an interrupted job leaves; raised with every change of them, so that older rows are not read."""


def predict_files(version: str, device: str, root: str, paths: list[str]) -> pd.DataFrame:
    """Predicts images; a file that cannot be read gets an error instead of a verdict.

    Args:
        version: folder or URI of a version of a registry.
        root: folder or URI that the paths are relative to.

    Returns:
        One row per path, in order, with COLUMNS: ``warnings`` are names of the service's warnings, separated by spaces;
        ``error`` says why an image cannot be read, and ``left_out`` why the file is not an image.

    Raises:
        BrokenArtifact: the version is incomplete or damaged.
        BadData: the storage fails.
    """
    predictor = _load_predictor(version, device)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        squares: list[tuple[dict[str, Any], Pixels]] = []
        for path in paths[start : start + BATCH]:
            row, image_SSC = _read(root, path, predictor.info)
            rows.append(row)
            if image_SSC is not None:
                squares.append((row, image_SSC))
        predictions = predictor.predict([image_SSC for _, image_SSC in squares])
        for (row, _), prediction in zip(squares, predictions, strict=True):
            row.update(verdict=prediction.verdict, p_fake=prediction.p_fake, logit=prediction.logit)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _read(root: str, path: str, model: ModelInfo) -> tuple[dict[str, Any], Pixels | None]:
    """The row of a file without its prediction, and what to predict, if there is anything. Raises BadData."""
    try:
        data = image_files.read(root, path)
        decoded = decode_file(data)
    except NotAnImage as error:
        return {"path": path, "left_out": str(error)}, None
    except BadImage as error:
        return {"path": path, "error": str(error)}, None
    size = model.preprocess.image_size
    nothing = quality.shows_nothing(decoded.image_HWC, size)
    if nothing:
        return {
            "path": path,
            "verdict": NO_FACE,
            "warnings": " ".join([*quality.file_flags(data, decoded), nothing]),
        }, None
    flags = [*quality.file_flags(data, decoded), *quality.square_flags(decoded.image_HWC, size)]
    return {"path": path, "warnings": " ".join(flags)}, square(decoded.image_HWC, model.preprocess)


@functools.lru_cache(maxsize=1)
def _load_predictor(version: str, device: str) -> Predictor:
    """Loaded once per process, which predicts many chunks of files."""
    return Predictor(versions.fetch(version), batch_size=BATCH, device=device, threads=1)
