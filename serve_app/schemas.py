"""The shape of every answer over HTTP."""

from typing import Literal, Self

from pydantic import BaseModel, Field

from detector_core.images.faces import Box
from detector_core.registry.predictor import ModelInfo
from serve_app.settings import Faces, HttpSettings, Limits

Label = Literal["real", "fake"]
Verdict = Literal["real", "uncertain", "fake", "no_face"]
Quality = Literal["small", "blurred", "dark"]
Warning = Literal["recompressed", "upscaled", "several_faces", "cropped"]
"""``recompressed``: a JPEG too coarse for traces. ``upscaled``: what was judged is smaller than the network's input.
``several_faces``: the likeliest fake decided. ``cropped``: of an image that is not square the centre was judged."""

CODES = {
    400: "not_an_image",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    422: "no_image",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
"""The ``code`` of each error status, unless one of :data:`OTHER_CODES` is more precise."""
OTHER_CODES = {
    "bad_request": (400, "the body is not the form or JSON that it says it is"),
    "not_a_video": (400, "the file is not a clip that can be read"),
    "no_video": (422, "the form has no clip"),
    "no_consent": (422, "feedback is kept only with consent=true"),
    "bad_parameter": (422, "a parameter has a value that is not allowed"),
    "bad_url": (422, "the address may not be asked, or did not give an image"),
}
"""Code -> status and meaning."""


class ModelRef(BaseModel):
    """Which model gave an answer."""

    name: str
    version: str
    sha256: str = Field(description="of the weights")

    @classmethod
    def to(cls, info: ModelInfo) -> "ModelRef":
        """The reference to a model."""
        return cls(name=info.name, version=info.version, sha256=info.sha256)


class Thresholds(BaseModel):
    """Below ``real_below`` an image is called real, from ``fake_above`` on fake, between them uncertain."""

    real_below: float
    fake_above: float

    @classmethod
    def of(cls, info: ModelInfo) -> "Thresholds":
        """A model's thresholds."""
        return cls(real_below=info.calibration.real_below, fake_above=info.calibration.fake_above)


class Size(BaseModel):
    """Pixels of the upright image: EXIF orientation is applied."""

    width: int
    height: int


_BOX = "left, top, right, bottom in pixels of the upright image"


class FaceAnswer(BaseModel):
    """One face of an image."""

    box: Box = Field(description=f"{_BOX}; may reach beyond its edge")
    judged: Box = Field(description="the square that was judged")
    score: float = Field(ge=0, le=1, description="of the face detector")
    p_fake: float = Field(ge=0, le=1)
    verdict: Verdict
    quality: list[Quality]


class Heatmap(BaseModel):
    """What in the judged square speaks for a verdict: a greyscale PNG, 255 where it speaks loudest."""

    toward: Label
    box: Box = Field(description=f"where it lies: {_BOX}")
    png_base64: str


class ImageTiming(BaseModel):
    """Milliseconds of each stage for one image."""

    decode: float
    faces: float
    detect: float
    explain: float


class Result(BaseModel):
    """The answer about one image."""

    index: int = Field(ge=0, description="position of the image in the request, from 0")
    verdict: Verdict
    p_fake: float | None = Field(
        ge=0, le=1, description="calibrated probability that the image is fake; null for no_face"
    )
    confidence: float | None = Field(
        ge=0, le=1, description="probability that the verdict is right; for uncertain, of the likelier side"
    )
    thresholds: Thresholds
    faces: list[FaceAnswer] = Field(description="the largest first; empty where none was looked for or found")
    size: Size
    judged: Box | None = Field(description=f"the square that decided the verdict: {_BOX}; null for no_face")
    warnings: list[Warning]
    heatmap: Heatmap | None = Field(None, description="with ?explain=true, where the network can be explained")
    model: ModelRef
    request_id: str
    timing_ms: ImageTiming
    retained: Literal[False] = Field(False, description="nothing of the image is kept")


class Timing(BaseModel):
    """Where the time of a request went, milliseconds."""

    read: float
    total: float


class DetectAnswer(BaseModel):
    """The answer to ``POST /v1/detect``: one result an image, in the order of the request."""

    results: list[Result]
    request_id: str
    timing_ms: Timing


class FrameAnswer(BaseModel):
    """One frame of a clip."""

    time_s: float = Field(ge=0, description="from the beginning of the clip")
    verdict: Verdict
    p_fake: float | None = Field(ge=0, le=1)
    faces: list[FaceAnswer]


class VideoAnswer(BaseModel):
    """The answer to ``POST /v1/detect/video``."""

    duration_s: float
    frames: list[FrameAnswer]
    verdict: Verdict
    p_fake: float | None = Field(ge=0, le=1, description="median of the judged frames; null where no frame has a face")
    share_fake: float | None = Field(ge=0, le=1, description="share of the judged frames that are called fake")
    judged_frames: int
    thresholds: Thresholds
    model: ModelRef
    warnings: list[Warning]
    request_id: str
    timing_ms: Timing
    retained: Literal[False] = Field(False, description="nothing of the clip is kept")


class FeedbackAnswer(BaseModel):
    """The answer to ``POST /v1/feedback``."""

    id: str = Field(description="name it to have the image deleted")
    stored: Literal[True] = True
    request_id: str


class TestFigures(BaseModel):
    """What a model reached on the test split of one data set; fractions, null where undefined."""

    data: str
    generated: bool
    images: int
    auc: float | None
    accuracy: float | None
    fakes_passed: float | None = Field(description="share of the fakes that were called real")
    reals_flagged: float | None = Field(description="share of the real images that were called fake")


class Features(BaseModel):
    """What this service offers."""

    faces: Literal["on", "off"] = Field(description="whether faces are looked for unless ?faces= says otherwise")
    url: bool
    feedback: bool
    video: bool
    key: bool = Field(description="an API key is needed")


class ModelAnswer(ModelRef):
    """The answer to ``GET /v1/model``."""

    variant: str
    created: str
    data: str = Field(description="name of the training data")
    generated: bool = Field(description="trained on generated demo data: its verdicts say nothing about photographs")
    image_size: int
    precision: str = Field(description="of the network's arithmetic")
    thresholds: Thresholds
    test: list[TestFigures]
    features: Features
    limits: Limits

    @classmethod
    def of(cls, info: ModelInfo, settings: HttpSettings) -> Self:
        """A model as it is shown."""
        return cls(
            name=info.name,
            version=info.version,
            sha256=info.sha256,
            variant=info.variant,
            created=info.created,
            data=info.data,
            generated=info.generated,
            image_size=info.preprocess.image_size,
            precision=str(getattr(info, "precision", "fp32")),
            thresholds=Thresholds.of(info),
            test=[TestFigures(**figures) for figures in info.test],
            features=Features(
                faces="on" if looks_for_faces(settings.faces, info) else "off",
                url=settings.allow_url,
                feedback=settings.feedback_folder is not None,
                video=settings.limits.frames > 0,
                key=settings.api_keys_file is not None,
            ),
            limits=settings.limits,
        )


def looks_for_faces(asked: Faces, info: ModelInfo) -> bool:
    """What ``auto`` means: MTCNN finds no face in the painted portraits of the demo data."""
    return asked == "on" or (asked == "auto" and not info.generated)


class Health(BaseModel):
    """The answer of the probes."""

    status: Literal["ok"] = "ok"


class Error(BaseModel):
    """What went wrong: ``code`` for programs, ``message`` for people."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: Error
