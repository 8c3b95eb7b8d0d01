"""What each worker of ``jobs.predict --out`` does: a row for every file, from the pipeline of the service.

Files are decoded as in the service: with its limits, and in child processes where it uses them.
"""

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from detector_core.data import image_files
from detector_core.errors import BadImage, NotAnImage
from detector_core.images import formats
from detector_core.images.budget import CpuBudget
from detector_core.images.claims import Claim
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor, describe
from serve_app import clips
from serve_app.clips import DecodedClip
from serve_app.decode_pool import DecodePool, Job
from serve_app.errors import Refusal
from serve_app.model_schemas import searches_faces
from serve_app.pipeline import DecodedImage, decide, decode_image
from serve_app.schemas import model_warnings
from serve_app.settings import Faces, Format, HttpSettings

BATCH = 32
SETTINGS = HttpSettings(formats=list(get_args(Format)))
LIMITS = SETTINGS.limits
COLUMNS = {
    "path": "str",
    "verdict": "str",
    "p_fake": "float64",
    "logit": "float64",
    "faces": "Int64",
    "crop_box": "str",
    "warnings": "str",
    "provenance": "str",
    "error": "str",
    "left_out": "str",
    "scored_faces": "str",
    "phash": "str",
}
FORMAT = 6
"""Of the rows that an interrupted job leaves; raised with every change of them, so that older rows are not read."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is the same for every chunk of files.

    Attributes:
        version: folder or URI of a model.
        device: ``cpu`` or ``cuda``.
        faces: as in a request to the service.
        root: folder or URI that the paths are relative to.
        signers: certificates of trusted signers, as PEM.
    """

    version: str
    device: str
    faces: Faces
    root: str
    signers: str = ""


Decoded = DecodedImage | DecodedClip | BadImage
"""What is kept of a file once its pixels are dropped, or why it cannot be read."""


def predict_files(task: Task, paths: list[str]) -> pd.DataFrame:
    """Predicts images and clips as the service does; a file that cannot be read gets an error instead of a verdict.

    Returns:
        One row per path, in order, with COLUMNS. ``logit`` is that of the decisive crop of an image; ``faces`` the
        number of scored faces, missing for a clip or if none was searched; ``crop_box`` the decisive part of an image
        and ``warnings`` the names of the service's warnings, both separated by spaces; ``provenance`` what the file
        says about its origin, as KIND:CLAIM:STANDING separated by spaces; ``error`` says why a file cannot be read,
        ``left_out`` why it is neither an image nor a clip; ``scored_faces`` is the ``faces`` of the service's answer
        as JSON, and ``phash`` the perceptual hash of an image.

    Raises:
        BrokenArtifact: the model is incomplete or damaged.
        BadData: the storage fails.
    """
    predictor = load_predictor(task)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        rows += predict_decoded(task, predictor, batch, [decode_file(task, path, predictor.info) for path in batch])
    return as_table(rows)


def hash_files(root: str, paths: list[str]) -> list[tuple[str, str | None, str | None, str | None]]:
    """The path of each file, and the SHA-256 of its content, or why it cannot be read, or why it is left out.

    Raises:
        BadData: the storage fails.
    """
    rows: list[tuple[str, str | None, str | None, str | None]] = []
    for path in paths:
        try:
            rows.append((path, hashlib.sha256(image_files.read(root, path, clips=True)).hexdigest(), None, None))
        except NotAnImage as error:
            rows.append((path, None, None, str(error)))
        except BadImage as error:
            rows.append((path, None, str(error), None))
    return rows


def predict_decoded(
    task: Task, predictor: Predictor, paths: list[str], decoded_files: list[Decoded]
) -> list[dict[str, Any]]:
    """The rows of a few decoded files, whose crops take the same forward passes."""
    search_faces = searches_faces(task.faces, predictor.info)
    crops = [crop.image_SSC for decoded in decoded_files for image in _images(decoded) for crop in image.crops]
    predictions = iter(predictor.predict(crops))
    rows = []
    for path, decoded in zip(paths, decoded_files, strict=True):
        row: dict[str, Any] = {"path": path}
        scored = [[next(predictions) for _ in image.crops] for image in _images(decoded)]
        if isinstance(decoded, DecodedImage):
            row |= _image_row(decoded, scored[0], predictor.info, search_faces)
        elif isinstance(decoded, DecodedClip):
            row |= _clip_row(decoded, scored, predictor.info)
        else:
            row["left_out" if isinstance(decoded, NotAnImage) else "error"] = str(decoded)
        rows.append(row)
    return rows


def decode_file(task: Task, path: str, model: ModelInfo) -> Decoded:
    """The crops of an image or a clip, or why it cannot be read. Raises BadData: the storage fails."""
    search_faces = searches_faces(task.faces, model)
    try:
        data = image_files.read(task.root, path, clips=True)
        if data and formats.identify(data[: formats.HEAD_BYTES]) is None:
            job = Job(_pool(), CpuBudget(LIMITS.video_cpu_s))
            # Nobody waits for it: only its CPU time is limited, which does not depend on what else the machine does.
            return clips.decode_clip(job, data, model, LIMITS, LIMITS.frames, search_faces, math.inf, task.signers)
        job = Job(_pool(), CpuBudget(LIMITS.cpu_s))
        return decode_image(job, data, model, LIMITS, SETTINGS.formats, search_faces, task.signers, hashed=True)
    except Refusal as refusal:  # of a clip
        return BadImage(str(refusal.detail))
    except BadImage as error:
        return error


def as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of :func:`predict_decoded` with all COLUMNS and their types."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _images(decoded: Decoded) -> tuple[DecodedImage, ...]:
    """The image, or the frames of a clip."""
    if isinstance(decoded, DecodedClip):
        return decoded.frames
    return (decoded,) if isinstance(decoded, DecodedImage) else ()


def _image_row(
    image: DecodedImage, predictions: list[Prediction], model: ModelInfo, search_faces: bool
) -> dict[str, Any]:
    decided = decide(image, predictions, model)
    return {
        "verdict": decided.verdict,
        "p_fake": decided.p_fake,
        "logit": max((prediction.logit for prediction in predictions), default=None),
        "faces": len(decided.faces) if search_faces else None,
        "crop_box": " ".join(map(str, decided.crop.box)) if decided.crop else None,
        "warnings": " ".join([*model_warnings(model), *image.warnings]),
        "provenance": _provenance(image.provenance),
        "scored_faces": json.dumps([face.model_dump(mode="json") for face in decided.faces]),
        "phash": image.phash,
    }


def _clip_row(clip: DecodedClip, predictions: list[list[Prediction]], model: ModelInfo) -> dict[str, Any]:
    frames = [decide(frame, scored, model) for frame, scored in zip(clip.frames, predictions, strict=True)]
    combined = clips.combine(clip, frames, model)
    return {
        "verdict": combined.verdict,
        "p_fake": combined.p_fake,
        "warnings": " ".join(clips.warnings(clip, model)),
        "provenance": _provenance(clip.provenance),
    }


def _provenance(claims: tuple[Claim, ...]) -> str:
    return " ".join(f"{claim.kind}:{claim.says}:{claim.standing}" for claim in claims)


@functools.cache
def _pool() -> DecodePool:
    """Whose memory the files of this process share."""
    return DecodePool(threads=1)


@functools.lru_cache(maxsize=1)
def describe_model(task: Task) -> ModelInfo:
    """What decoding has to know of the model of a task. Raises BrokenArtifact."""
    return describe(versions.fetch(task.version))


@functools.lru_cache(maxsize=1)
def load_predictor(task: Task) -> Predictor:
    """The model of a task, loaded once per process, which predicts many files. Raises BrokenArtifact."""
    return Predictor(versions.fetch(task.version), batch_size=BATCH, device=task.device, threads=1)
