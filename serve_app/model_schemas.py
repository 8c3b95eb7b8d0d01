"""The schema of ``GET /v1/model``: the model that answers, and what the service offers."""

from typing import Literal, Self

from pydantic import BaseModel, Field

from detector_core.registry import starter
from detector_core.registry.predictor import ModelInfo
from serve_app.schemas import ModelRef, Thresholds
from serve_app.settings import Faces, HttpSettings, Limits


class FlagValue(BaseModel):
    """How many flags (verdicts fake) are right where a share of the images is fake; null if undefined."""

    share_of_fakes: float
    value: float | None = Field(description="fraction of the flags that are right (precision of the verdict fake)")
    low: float | None = Field(description="95% interval")
    high: float | None


class TestMetrics(BaseModel):
    """The metrics of a model on the test split of one data set, as fractions; null if undefined."""

    data: str
    generated: bool
    images: int
    auc: float | None = Field(description="ROC AUC")
    accuracy: float | None
    fakes_passed_rate: float | None = Field(
        description="proportion of the fakes whose verdict is not fake (FPR by the paper's convention, APCER)"
    )
    reals_flagged_rate: float | None = Field(
        description="proportion of the real images whose verdict is fake (FNR by the paper's convention, BPCER)"
    )
    flag_value: list[FlagValue] = Field(
        description="what a flag is worth at several shares of fakes; empty if the report has no confusion matrix"
    )


class Features(BaseModel):
    """What this service offers."""

    faces: Literal["on", "off"] = Field(description="whether faces are searched by default, that is with faces=auto")
    url: bool = Field(description="whether the service fetches images from URLs")
    feedback: bool = Field(description="whether the service accepts feedback")
    video: bool = Field(description="whether the service accepts clips")
    key: bool = Field(description="whether an API key is required")


class ModelAnswer(ModelRef):
    """The answer to ``GET /v1/model``."""

    variant: str
    created: str
    data: str = Field(description="name of the training data")
    generated: bool = Field(
        description="true for a model trained on generated demo data, whose verdicts mean nothing for photographs"
    )
    starter: bool = Field(
        description="true for the starter model, which comes with the project and was promoted automatically because "
        "MODELS was empty"
    )
    image_size: int
    precision: str = Field(description="numeric precision that the network runs in, such as int8")
    thresholds: Thresholds
    test: list[TestMetrics]
    features: Features
    limits: Limits

    @classmethod
    def describe(cls, info: ModelInfo, settings: HttpSettings) -> Self:
        """The description of a model on a service."""
        return cls(
            name=info.name,
            version=info.version,
            sha256=info.sha256,
            variant=info.variant,
            created=info.created,
            data=info.data,
            generated=info.generated,
            starter=info.name == starter.NAME,
            image_size=info.preprocess.image_size,
            precision=info.precision,
            thresholds=Thresholds.of(info),
            test=[TestMetrics(**metrics) for metrics in info.test_metrics],
            features=Features(
                faces="on" if searches_faces(settings.faces, info) else "off",
                url=settings.allow_url,
                feedback=settings.feedback_folder is not None,
                video=settings.limits.frames > 0,
                key=settings.api_keys_file is not None,
            ),
            limits=settings.limits,
        )


def searches_faces(setting: Faces, info: ModelInfo) -> bool:
    """Resolves ``auto``: faces are searched unless the model was trained on demo data, in which MTCNN finds none."""
    return setting == "on" or (setting == "auto" and not info.generated)
