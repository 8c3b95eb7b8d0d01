"""The schemas of all answers over HTTP but errors (:mod:`serve_app.errors`)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field

from detector_core.data import feedback
from detector_core.images.claims import Claim, Kind, Says, Standing
from detector_core.images.faces import Box
from detector_core.registry.predictor import ModelInfo

Label = Literal["real", "fake"]
Verdict = Literal["real", "uncertain", "fake", "no_face"]
Quality = Literal["small", "blurred", "dark"]
ImageWarning = Literal[
    "demo_model",
    "recompressed",
    "metadata_dropped",
    "animated",
    "too_small",
    "blank",
    "upscaled",
    "several_faces",
    "faces_left_out",
    "crowd",
    "cropped",
    "not_as_shown",
    "damaged_frames",
]
"""``demo_model``: the model was trained on painted demo portraits, so its verdicts mean nothing for photographs.
``recompressed``: a JPEG of such low quality that traces are lost. ``metadata_dropped``: damaged or very large metadata
was ignored. ``animated``: only the first frame of an animation was scored. ``too_small``, ``blank``: the image shows
nothing that could be scored. ``upscaled``: the scored part is smaller than the model's input. ``several_faces``: the
face that is most likely fake decided. ``faces_left_out``: only the largest faces were scored, so the verdict is not
real. ``crowd``: so much looks like a face that only larger faces were searched; the verdict is not real either.
``cropped``: the image is not square, and only its center square was scored. ``not_as_shown``: players show the clip
differently, because it declares something that was not applied. ``damaged_frames``: parts of the clip cannot be
decoded; for them the frame before counts."""


class ModelRef(BaseModel):
    """Which model gave an answer."""

    name: str
    version: str
    sha256: str = Field(description="SHA-256 of the weights")

    @classmethod
    def of(cls, info: ModelInfo) -> "ModelRef":
        """The reference to a model."""
        return cls(name=info.name, version=info.version, sha256=info.sha256)


class Thresholds(BaseModel):
    """The verdict is real if p_fake is below ``real_below``, fake from ``fake_above`` on, and uncertain in between."""

    real_below: float = Field(ge=0, le=0.5, description="real if p_fake is below it; at most 0.5")
    fake_above: float = Field(ge=0.5, le=1, description="fake if p_fake is at or above it; at least 0.5")

    @classmethod
    def of(cls, info: ModelInfo) -> "Thresholds":
        """The thresholds of a model."""
        return cls(real_below=info.calibration.real_below, fake_above=info.calibration.fake_above)


class Size(BaseModel):
    """The size of the upright image (EXIF orientation applied), in pixels."""

    width: int
    height: int


_BOX = "left, top, right, bottom in pixels of the upright image"


class FaceAnswer(BaseModel):
    """One face of an image."""

    box: Box = Field(description=f"the detected face: {_BOX}; it may extend beyond the image")
    crop_box: Box = Field(description=f"the part that was scored: {_BOX}")
    score: float = Field(ge=0, le=1, description="confidence of the face detector")
    p_fake: float = Field(ge=0, le=1)
    verdict: Verdict
    quality: list[Quality]


class Heatmap(BaseModel):
    """Where the evidence for a verdict lies (Grad-CAM): a grayscale PNG, 255 where the evidence is strongest."""

    toward: Label
    box: Box = Field(description=f"the part of the image that the PNG covers: {_BOX}")
    png_base64: str


class ImageTiming(BaseModel):
    """The duration of each stage for one image, in milliseconds."""

    decode: float
    faces: float
    detect: float
    explain: float


class TagAnswer(BaseModel):
    """What became of an image that was sent with a tag and consent: it is stored, and nothing learns from it yet."""

    label: Label = Field(description="the tag: what the image shows according to its sender")
    id: str = Field(description="give it to the operator to have the image deleted")
    new: bool = Field(description="false if this image was given with this tag before: it counts once")
    message: str = Field(description="such as: tagged real, predicted fake: waits for review")

    @classmethod
    def of(cls, donation: feedback.Donation, label: Label, verdict: Verdict) -> Self:
        """The answer about a stored image."""
        message = f"tagged {label}, predicted {verdict}: waits for review"
        return cls(label=label, id=donation.id, new=donation.is_new, message=message)


class ProvenanceClaim(BaseModel):
    """One thing that the file says about where it comes from. It is no part of ``p_fake`` or the verdict."""

    kind: Kind = Field(
        description="c2pa: a C2PA manifest (Content Credentials); iptc: IPTC's digital source type in XMP; "
        "generator_text: settings that a generator wrote into the file; camera: EXIF data of a camera"
    )
    says: Says = Field(description="what it claims the image to be")
    standing: Standing = Field(
        description="listed_signer: a valid signature of a signer on the operator's list; signed: a valid signature of "
        "a signer who may be anybody; unsigned: anybody can have written it; broken: the signature does not match, the "
        "file was changed after it was signed, or the claim cannot be read"
    )
    tool: str | None = Field(None, description="the program or camera that it names")
    signer: str | None = Field(None, description="the organization in the signer's certificate")
    source_type: str | None = Field(None, description="IPTC's code, such as trainedAlgorithmicMedia")
    date: str | None = Field(None, description="when it was signed or taken, as the file says")
    problem: str | None = Field(None, description="why it is broken")

    @classmethod
    def of(cls, claim: Claim) -> Self:
        """The schema of a claim."""
        return cls(**dataclasses.asdict(claim))


_PROVENANCE: Any = Field(
    [],
    description="what the file says about where it comes from, separate from the score. An empty list says nothing: "
    "most files have no such statement, and anybody can remove one",
)


class Result(BaseModel):
    """The answer about one image."""

    index: int = Field(ge=0, description="position of the image in the request, from 0")
    verdict: Verdict
    p_fake: float | None = Field(
        ge=0,
        le=1,
        description="calibrated probability that the image is fake, if half of all images are; null for no_face",
    )
    confidence: float | None = Field(
        ge=0,
        le=1,
        description="probability that the verdict is right; for uncertain, the probability of the more likely label",
    )
    thresholds: Thresholds
    faces: list[FaceAnswer] = Field(
        description="the scored faces, the largest first; empty if faces were not searched or none was found"
    )
    faces_left_out: list[Box] = Field(
        description=f"faces that were found but not scored, because there are more than limits.max_faces: {_BOX}"
    )
    size: Size
    crop_box: Box | None = Field(description=f"the part that decided the verdict: {_BOX}; null for no_face")
    warnings: list[ImageWarning]
    heatmap: Heatmap | None = Field(
        None, description="with ?explain=true; null if the network has no feature maps or no face was found"
    )
    model: ModelRef
    request_id: str
    timing_ms: ImageTiming
    retained: bool = Field(False, description="whether the image is kept: only with a tag and consent=true")
    tag: TagAnswer | None = Field(None, description="with ?tag=real or fake and consent=true; otherwise null")
    receipt: str | None = Field(
        None, description="send it with feedback about this answer; null if the service accepts no feedback"
    )
    provenance: list[ProvenanceClaim] = _PROVENANCE


class Timing(BaseModel):
    """How long reading the request and answering it took, in milliseconds."""

    read: float
    total: float


class DetectAnswer(BaseModel):
    """The answer to ``POST /v1/detect``: one result per image, in the order of the request."""

    results: list[Result]
    request_id: str
    timing_ms: Timing


class FrameAnswer(BaseModel):
    """A sampled moment of a clip, and the frame that a player shows then."""

    time_s: float = Field(ge=0, description="seconds from the beginning of the clip")
    verdict: Verdict
    p_fake: float | None = Field(ge=0, le=1)
    faces: list[FaceAnswer]
    faces_left_out: list[Box]


class VideoAnswer(BaseModel):
    """The answer to ``POST /v1/detect/video``."""

    duration_s: float
    frames: list[FrameAnswer] = Field(
        description="one entry for each sampled moment, in order; a frame that stays is in several of them"
    )
    verdict: Verdict
    p_fake: float | None = Field(ge=0, le=1, description="median over the scored moments; null if none was scored")
    proportion_fake: float | None = Field(
        ge=0, le=1, description="proportion of the scored moments whose verdict is fake"
    )
    scored_frames: int = Field(description="number of moments with a face; all of them if faces were not searched")
    thresholds: Thresholds
    model: ModelRef
    warnings: list[ImageWarning]
    request_id: str
    timing_ms: Timing
    retained: Literal[False] = Field(False, description="always false: the clip is not kept")
    provenance: list[ProvenanceClaim] = _PROVENANCE


class FeedbackAnswer(BaseModel):
    """The answer to ``POST /v1/feedback``."""

    id: str = Field(description="give it to the operator to have the image deleted")
    stored: Literal[True] = True
    new: bool = Field(
        description="false, with status 200, if this image was given with this label before: it counts once"
    )
    request_id: str


def model_warnings(info: ModelInfo) -> list[ImageWarning]:
    """What to say with every answer of a model."""
    return ["demo_model"] if info.generated else []


def as_warnings(names: Sequence[str]) -> tuple[ImageWarning, ...]:
    """Narrows the type of warnings. Raises ValueError for any other word."""
    known = {name: name for name in get_args(ImageWarning)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the warning {unknown[0]!r} is unknown")
    return tuple(known[name] for name in names)


def as_verdict(name: str) -> Verdict:
    """Narrows the type of a verdict. Raises ValueError for any other word."""
    for verdict in ("real", "uncertain", "fake"):
        if name == verdict:
            return verdict
    raise ValueError(f"the verdict {name!r} is unknown")


class Health(BaseModel):
    """The answer of the health probes."""

    status: Literal["ok"] = "ok"
