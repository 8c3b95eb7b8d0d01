"""The schema of ``GET /v1/model``: the model that answers, and what the service offers."""

from typing import Literal, Self

from pydantic import BaseModel, Field

from detector_core.registry import starter
from detector_core.registry.canary import State, Status
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


class CanaryAnswer(BaseModel):
    """A candidate that answers about a share of the images, or how the last one ended."""

    version: str = Field(description="the candidate")
    live: str = Field(description="the version that it is compared with")
    share: float = Field(description="proportion of the images that the candidate answers about while it runs")
    state: State = Field(
        description="comparing: not decided; agrees: ready to be promoted; went_back: the verdicts differed too often, "
        "so the live version answers everything again; not_loaded: a replica could not load the candidate; promoted, "
        "live_changed, stopped: ended by a promotion, a rollback or an operator"
    )
    images: int = Field(description="number of images that both versions have scored, on all replicas")
    disagreements: int = Field(description="how many of them got another verdict from the candidate, or none")
    errors: int = Field(description="how many of them got none")
    low: float = Field(description="95% interval of the proportion of disagreements; it holds at every look")
    high: float
    max_disagreement: float = Field(description="the largest proportion that is allowed")
    p_fake_difference: float | None = Field(description="mean of the candidate's p_fake minus that of the live version")
    p_fake_absolute_difference: float | None = Field(description="mean of the absolute differences of p_fake")
    live_ms: float | None = Field(description="mean duration of a prediction, in milliseconds")
    candidate_ms: float | None
    started: str
    ended: str | None
    reason: str | None = Field(description="why it ended")

    @classmethod
    def of(cls, status: Status) -> Self:
        """The schema of a status."""
        canary, counts, scored = status.canary, status.counts, status.counts.images - status.counts.errors

        def mean(total: float, of: int, scale: float = 1.0) -> float | None:
            return round(scale * total / of, 4) if of else None

        return cls(
            version=canary.candidate,
            live=canary.live,
            share=canary.share,
            state=status.state,
            images=counts.images,
            disagreements=counts.disagreements,
            errors=counts.errors,
            low=round(status.low, 4),
            high=round(status.high, 4),
            max_disagreement=canary.max_disagreement,
            p_fake_difference=mean(counts.difference, scored),
            p_fake_absolute_difference=mean(counts.absolute_difference, scored),
            live_ms=mean(counts.live_s, counts.images, 1000),
            candidate_ms=mean(counts.candidate_s, scored, 1000),
            started=canary.started,
            ended=canary.ended or None,
            reason=canary.reason or None,
        )


class ModelAnswer(ModelRef):
    """The answer to ``GET /v1/model``."""

    variant: str
    created: str
    data: str = Field(description="name of the training data")
    generated: bool = Field(
        description="true for a model trained on generated demo data, whose verdicts mean nothing for photographs"
    )
    terms: str | None = Field(description="the terms of the training data; null if the data set names none")
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
    canary: CanaryAnswer | None = Field(None, description="the latest canary; null without one")

    @classmethod
    def describe(cls, info: ModelInfo, settings: HttpSettings, canary: Status | None = None) -> Self:
        """The description of a model on a service."""
        return cls(
            name=info.name,
            version=info.version,
            sha256=info.sha256,
            variant=info.variant,
            created=info.created,
            data=info.data,
            generated=info.generated,
            terms=info.terms or None,
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
            canary=CanaryAnswer.of(canary) if canary else None,
        )


def searches_faces(setting: Faces, info: ModelInfo) -> bool:
    """Resolves ``auto``: faces are searched unless the model was trained on demo data, in which MTCNN finds none."""
    return setting == "on" or (setting == "auto" and not info.generated)
