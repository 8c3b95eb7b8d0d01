"""What goes over HTTP, in both directions: the limits of a question and the shape of every answer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from detector_core.pictures import MAX_PIXELS
from detector_core.runtime import ModelInfo, Prediction

Verdict = Literal["real", "uncertain", "fake"]
Warning = Literal["upscaled", "cropped"]
"""``upscaled``: smaller than the network's input. ``cropped``: not square, only the centre square was judged."""

CODES = {
    400: "not_an_image",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "no_image",
    500: "internal",
    503: "unavailable",
}
"""The ``code`` of each error status."""


class Limits(BaseModel):
    """What one request may bring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = Field(20 * 2**20, gt=0, description="of the whole request")
    max_files: int = Field(10, gt=0)
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="of one picture; checked before it is decoded")


class ModelRef(BaseModel):
    """Which model gave an answer."""

    name: str
    version: str
    sha256: str = Field(description="of the weights")


class Thresholds(BaseModel):
    """Below ``real_below`` a picture is called real, from ``fake_above`` on fake, between them uncertain."""

    real_below: float
    fake_above: float

    @classmethod
    def of(cls, info: ModelInfo) -> "Thresholds":
        """A model's thresholds."""
        return cls(real_below=info.calibration.real_below, fake_above=info.calibration.fake_above)


class Result(BaseModel):
    """The answer about one picture."""

    index: int = Field(description="position of the picture in the request, from 0")
    verdict: Verdict
    p_fake: float = Field(ge=0, le=1, description="calibrated probability that the picture is fake")
    confidence: float = Field(
        ge=0, le=1, description="probability that the verdict is right; for uncertain, of the likelier side"
    )
    thresholds: Thresholds
    warnings: list[Warning]
    model: ModelRef
    retained: Literal[False] = Field(False, description="nothing of the picture is kept")

    @classmethod
    def of(cls, index: int, prediction: Prediction, warnings: list[Warning]) -> "Result":
        """A prediction as it goes over HTTP."""
        info = prediction.model
        return cls(
            index=index,
            verdict=prediction.verdict,
            p_fake=prediction.p_fake,
            confidence=prediction.confidence,
            thresholds=Thresholds.of(info),
            warnings=warnings,
            model=ModelRef(name=info.name, version=info.version, sha256=info.sha256),
        )


class Timing(BaseModel):
    """Where the time of a request went, milliseconds."""

    read: float
    decode: float
    detect: float
    total: float


class DetectAnswer(BaseModel):
    """The answer to ``POST /v1/detect``: one result a picture, in the order of the request."""

    results: list[Result]
    request_id: str
    timing_ms: Timing


class TestFigures(BaseModel):
    """What a model reached on the test split of one data set; fractions, null where undefined."""

    data: str
    generated: bool
    pictures: int
    auc: float | None
    accuracy: float | None
    fakes_passed: float | None = Field(description="share of the fakes that were called real")
    reals_flagged: float | None = Field(description="share of the real pictures that were called fake")


class ModelAnswer(ModelRef):
    """The answer to ``GET /v1/model``."""

    variant: str
    created: str
    data: str = Field(description="name of the training data")
    generated: bool = Field(description="trained on generated demo data: its verdicts say nothing about photographs")
    image_size: int
    thresholds: Thresholds
    test: list[TestFigures]

    @classmethod
    def of(cls, info: ModelInfo) -> "ModelAnswer":
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
            thresholds=Thresholds.of(info),
            test=[TestFigures(**figures) for figures in info.test],
        )


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
