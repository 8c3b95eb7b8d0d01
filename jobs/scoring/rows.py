"""What each worker of ``jobs.predict --out`` does: a row for every file, from the pipeline of the service."""

import functools
import json
from typing import Any

import pandas as pd

from detector_core.data import image_files
from detector_core.errors import BadImage, NotAnImage
from detector_core.images import quality
from detector_core.images.decode import decode_file
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor
from serve_app.model_schemas import searches_faces
from serve_app.pipeline import DecodedImage, decide, find_crops
from serve_app.schemas import model_warnings
from serve_app.settings import Faces, Limits

BATCH = 32
LIMITS = Limits()
COLUMNS = {
    "path": "str",
    "verdict": "str",
    "p_fake": "float64",
    "logit": "float64",
    "faces": "Int64",
    "crop_box": "str",
    "warnings": "str",
    "error": "str",
    "left_out": "str",
    "scored_faces": "str",
}
FORMAT = 3
"""Of the rows that an interrupted job leaves; raised with every change of them, so that older rows are not read."""


def predict_files(version: str, device: str, faces: Faces, root: str, paths: list[str]) -> pd.DataFrame:
    """Predicts images as the service does; a file that cannot be read gets an error instead of a verdict.

    Args:
        version: folder or URI of a model.
        faces: as in a request to the service.
        root: folder or URI that the paths are relative to.

    Returns:
        One row per path, in order, with COLUMNS. ``logit`` is that of the decisive crop; ``faces`` the number of scored
        faces, missing if none was searched; ``crop_box`` the decisive part and ``warnings`` the names of the service's
        warnings, both separated by spaces; ``error`` says why an image cannot be read, ``left_out`` why the file is not
        an image; ``scored_faces`` is the ``faces`` of the service's answer as JSON.

    Raises:
        BrokenArtifact: the model is incomplete or damaged.
        BadData: the storage fails.
    """
    predictor = _load_predictor(version, device)
    search_faces = searches_faces(faces, predictor.info)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        rows += _predict_batch(predictor, root, paths[start : start + BATCH], search_faces)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _predict_batch(predictor: Predictor, root: str, paths: list[str], search_faces: bool) -> list[dict[str, Any]]:
    """The rows of a few files, whose crops take the same forward passes. Raises BadData."""
    read = [_read(root, path, predictor.info, search_faces) for path in paths]
    crops = [crop.image_SSC for image in read if isinstance(image, DecodedImage) for crop in image.crops]
    predictions = iter(predictor.predict(crops))
    rows = []
    for path, image in zip(paths, read, strict=True):
        row: dict[str, Any] = {"path": path}
        if isinstance(image, DecodedImage):
            row |= _row(image, [next(predictions) for _ in image.crops], predictor.info, search_faces)
        else:
            row["left_out" if isinstance(image, NotAnImage) else "error"] = str(image)
        rows.append(row)
    return rows


def _read(root: str, path: str, model: ModelInfo, search_faces: bool) -> DecodedImage | BadImage:
    """The crops of an image, or why it cannot be read. Raises BadData."""
    try:
        decoded = decode_file(image_files.read(root, path))
    except BadImage as error:
        return error
    return find_crops(decoded.image_HWC, model, LIMITS, search_faces, quality.file_flags(decoded))


def _row(image: DecodedImage, predictions: list[Prediction], model: ModelInfo, search_faces: bool) -> dict[str, Any]:
    decided = decide(image, predictions, model)
    return {
        "verdict": decided.verdict,
        "p_fake": decided.p_fake,
        "logit": max((prediction.logit for prediction in predictions), default=None),
        "faces": len(decided.faces) if search_faces else None,
        "crop_box": " ".join(map(str, decided.crop.box)) if decided.crop else None,
        "warnings": " ".join([*model_warnings(model), *image.warnings]),
        "scored_faces": json.dumps([face.model_dump(mode="json") for face in decided.faces]),
    }


@functools.lru_cache(maxsize=1)
def _load_predictor(version: str, device: str) -> Predictor:
    """Loaded once per process, which predicts many chunks of files."""
    return Predictor(versions.fetch(version), batch_size=BATCH, device=device, threads=1)
