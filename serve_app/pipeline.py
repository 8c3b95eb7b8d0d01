"""The pipeline of one image, or of one frame of a clip: pixels -> faces -> crops of the model's size -> prediction.

Images and frames take the same two steps. :func:`find_crops` runs in a thread (:mod:`serve_app.decode_pool`), the only
place that holds the whole image; :func:`predict_image` sends the small crops to the model.
"""

import base64
import io
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from detector_core.data.inspect import perceptual_hash
from detector_core.errors import BadConfig
from detector_core.evaluation.calibration import NO_FACE, UNCERTAIN
from detector_core.images import align, faces, provenance, quality
from detector_core.images.claims import Claim
from detector_core.images.decode import Heat, Pixels
from detector_core.images.faces import Box, Face, Search
from detector_core.images.preprocess import square
from detector_core.labels import FAKE, REAL
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.decode_pool import Job, gather
from serve_app.schemas import FaceAnswer, Heatmap, ImageWarning, Quality, Verdict, as_verdict, as_warnings
from serve_app.settings import Limits


class ModelClient(Protocol):
    """A connection to the model. Every method raises Unavailable if the model cannot answer now."""

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """Predicts one image of the model's size."""
        ...

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """Returns the evidence for a label: heat_SS, 0 to 1. Raises BadConfig if the network has no feature maps."""
        ...

    async def model_info(self) -> ModelInfo:
        """Describes the model that answers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One part of an image as the model sees it.

    Attributes:
        image_SSC: uint8, of the model's size.
        box: where it lies in the image, in pixels; the bounding box of ``frame`` if the face was aligned.
        face: the face in it, if faces were searched.
        frame: how the face was aligned; None for an upright center square.
        quality: flags that make the score less reliable, see :data:`serve_app.schemas.Quality`.
    """

    image_SSC: Pixels
    box: Box
    face: Face | None = None
    frame: align.Frame | None = None
    quality: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """What is kept of an image once its pixels are dropped.

    Attributes:
        width, height: of the upright image, in pixels.
        crops: the parts to predict, the largest face first; none if faces were searched and none was found, or the
            image shows nothing.
        faces_left_out: boxes of the faces that were found but are not among the crops, because there are too many.
        searched_all: False in a crowd, of which only the larger faces were searched.
        decode_s, faces_s: seconds spent on decoding, and on finding faces and cropping.
        provenance: what the file says about where it comes from; nothing that is predicted depends on it.
        phash: the perceptual hash of the image, if it was asked for.
    """

    width: int
    height: int
    crops: tuple[Crop, ...]
    faces_left_out: tuple[Box, ...]
    searched_all: bool
    warnings: tuple[ImageWarning, ...]
    decode_s: float
    faces_s: float
    provenance: tuple[Claim, ...] = ()
    phash: str | None = None

    @property
    def has_unscored_faces(self) -> bool:
        """Whether the image has, or may have, faces that are not among the crops."""
        return bool(self.faces_left_out) or not self.searched_all


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """The verdict about an image.

    Attributes:
        p_fake, confidence, crop: those of the decisive crop; None if no face was found.
        detect_s, explain_s: seconds spent on the predictions and on the heat map.
    """

    verdict: Verdict
    p_fake: float | None
    confidence: float | None
    crop: Crop | None
    faces: list[FaceAnswer]
    model: ModelInfo
    heatmap: Heatmap | None = None
    detect_s: float = 0.0
    explain_s: float = 0.0


def decode_image(
    job: Job,
    data: bytes,
    model: ModelInfo,
    limits: Limits,
    accepted: Collection[str],
    search_faces: bool,
    signers: str = "",
    sharing: int = 1,
    *,
    hashed: bool = False,
) -> DecodedImage:
    """Decodes an uploaded image, finds the crops to predict, and reads what the file says about its origin.

    Args:
        accepted: the formats that the service accepts.
        signers: see :func:`detector_core.images.provenance.read`.
        sharing: how many images the request has, which share its face search.
        hashed: also compute the perceptual hash.

    Raises:
        BadImage: it cannot be decoded within the job's budget.
        Cancelled: nobody waits for it any more.
    """
    with job.opened(data, max_pixels=limits.max_pixels, accepted=accepted) as image, job.counted():
        started = time.perf_counter()
        decoded = image.decode()
        flags, decode_s = quality.file_flags(decoded), time.perf_counter() - started
        crops = find_crops(decoded.image_HWC, model, limits, search_faces, flags, decode_s, sharing)
        phash = perceptual_hash(decoded.image_HWC) if hashed else None
    claims = provenance.read(data, signers=signers, budget=job.budget, cancellation=job)
    return replace(crops, provenance=claims, phash=phash)


def find_crops(
    image_HWC: Pixels,
    model: ModelInfo,
    limits: Limits,
    search_faces: bool,
    file_flags: tuple[str, ...] = (),
    decode_s: float = 0.0,
    sharing: int = 1,
) -> DecodedImage:
    """Finds the crops to predict in a decoded image or frame: each face, or the center square without face search.

    Args:
        file_flags: warnings about the file, which come first.
        sharing: see :func:`detector_core.images.faces.search`.
    """
    started = time.perf_counter()
    height, width = image_HWC.shape[:2]
    nothing = quality.shows_nothing(image_HWC, model.preprocess.image_size)
    searches = search_faces and not nothing
    detected, complete = faces.search(image_HWC, sharing) if searches else Search([], complete=True)
    crops = () if nothing else _crops(image_HWC, model, detected[: limits.max_faces], search_faces)
    flags = {
        "upscaled": any(crop.box[2] - crop.box[0] < model.preprocess.image_size for crop in crops),
        "several_faces": len(detected) > 1,
        "faces_left_out": len(detected) > limits.max_faces,
        "crowd": not complete,
        "cropped": width != height and bool(crops) and crops[0].box == _center(width, height),
    }
    return DecodedImage(
        width=width,
        height=height,
        crops=crops,
        faces_left_out=tuple(_face_box(face) for face in detected[limits.max_faces :]),
        searched_all=complete,
        warnings=as_warnings([*file_flags, *([nothing] if nothing else ()), *(name for name in flags if flags[name])]),
        decode_s=decode_s,
        faces_s=time.perf_counter() - started,
    )


def _crops(image_HWC: Pixels, model: ModelInfo, detected: list[Face], search_faces: bool) -> tuple[Crop, ...]:
    height, width = image_HWC.shape[:2]
    whole = Crop(image_SSC=square(image_HWC, model.preprocess), box=_center(width, height))
    if not search_faces:
        return (whole,)
    if detected and faces.fills_image(image_HWC, detected[0]):  # an aligned portrait: cropped as in jobs.evaluate
        flags = quality.face_flags(image_HWC, detected[0])
        portrait = Crop(image_SSC=whole.image_SSC, box=whole.box, face=detected[0], quality=flags)
        return (portrait, *(_aligned(image_HWC, face, model) for face in detected[1:]))
    return tuple(_aligned(image_HWC, face, model) for face in detected)


def _aligned(image_HWC: Pixels, face: Face, model: ModelInfo) -> Crop:
    frame = align.portrait_frame(face)
    return Crop(
        image_SSC=align.extract_portrait(image_HWC, frame, model.preprocess.image_size),
        box=align.bounding_box(frame, image_HWC),
        face=face,
        frame=frame,
        quality=quality.face_flags(image_HWC, face),
    )


def _face_box(face: Face) -> Box:
    left, top, right, bottom = (round(value) for value in face.box)
    return left, top, right, bottom


def _center(width: int, height: int) -> Box:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


async def predict_image(
    client: ModelClient, image: DecodedImage, model: ModelInfo, *, explain: bool = False
) -> ImagePrediction:
    """Predicts every crop of an image. The one most likely to be fake decides: a fake passed is the more serious error.

    An image is not called real while some of its faces were left out, or not even searched: any of them may be fake.

    Args:
        model: the model to name if there is nothing to predict.
        explain: whether to add a heat map of the evidence in the decisive crop.

    Raises:
        Unavailable: the model cannot answer now.
    """
    started = time.perf_counter()
    predictions = await gather(client.predict(crop.image_SSC) for crop in image.crops)
    decided = replace(decide(image, predictions, model), detect_s=time.perf_counter() - started)
    return await add_heatmap(client, decided) if explain else decided


async def add_heatmap(client: ModelClient, prediction: ImagePrediction) -> ImagePrediction:
    """Adds the heat map of the evidence in the decisive crop. Raises Unavailable."""
    started = time.perf_counter()
    heatmap = await _heatmap(client, prediction.crop, prediction.verdict) if prediction.crop else None
    return replace(prediction, heatmap=heatmap, explain_s=time.perf_counter() - started)


def decide(image: DecodedImage, predictions: Sequence[Prediction], model: ModelInfo) -> ImagePrediction:
    """The verdict about an image from the predictions of its crops; see :func:`predict_image`."""
    pairs = list(zip(image.crops, predictions, strict=True))
    crop, decisive = max(pairs, key=lambda pair: pair[1].p_fake, default=(None, None))
    verdict = as_verdict(decisive.verdict) if decisive else NO_FACE
    return ImagePrediction(
        verdict=UNCERTAIN if verdict == REAL and image.has_unscored_faces else verdict,
        p_fake=decisive.p_fake if decisive else None,
        confidence=decisive.confidence if decisive else None,
        crop=crop,
        faces=[_face_answer(crop, crop.face, prediction) for crop, prediction in pairs if crop.face],
        model=decisive.model if decisive else model,
    )


def _face_answer(crop: Crop, face: Face, prediction: Prediction) -> FaceAnswer:
    flags: list[Quality] = [flag for flag in ("small", "blurred", "dark") if flag in crop.quality]
    return FaceAnswer(
        box=_face_box(face),
        crop_box=crop.box,
        score=min(1.0, face.score),
        p_fake=prediction.p_fake,
        verdict=as_verdict(prediction.verdict),
        quality=flags,
    )


async def _heatmap(client: ModelClient, crop: Crop, verdict: str) -> Heatmap | None:
    toward = REAL if verdict == REAL else FAKE
    try:
        heat_SS = await client.explain(crop.image_SSC, toward)
    except BadConfig:  # the network has no feature maps
        return None
    gray_HW = np.rint(255 * np.clip(np.nan_to_num(heat_SS), 0, 1)).astype(np.uint8)
    if crop.frame:
        gray_HW = align.project_back(gray_HW, crop.frame, crop.box)
    buffer = io.BytesIO()
    Image.fromarray(gray_HW).save(buffer, "PNG")
    return Heatmap(toward=toward, box=crop.box, png_base64=base64.b64encode(buffer.getvalue()).decode())
