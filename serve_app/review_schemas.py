"""What the routes of the review take and answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from detector_core.data.review import Decision, Tag
from serve_app.schemas import Label

Action = Literal["accept", "reject", "undo"]
State = Literal["waiting", "accepted", "rejected", "disputed"]
Reviewer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class NewDecision(BaseModel):
    """What a reviewer decides about a tag."""

    model_config = ConfigDict(extra="forbid")

    action: Action = Field(description="accept or reject the tag, or undo your own earlier decision")
    reviewer: Reviewer = Field(description="your name, which is recorded with the decision")
    reason: str = Field("", max_length=500, description="how you know")


class ReviewDecision(BaseModel):
    """One decision about a tag."""

    action: Action
    reviewer: str
    reason: str
    time: str = Field(description="UTC, ISO 8601")

    @classmethod
    def of(cls, decision: Decision) -> "ReviewDecision":
        """The answer for a decision."""
        return cls.model_validate(vars(decision), extra="ignore")


class ReviewTag(BaseModel):
    """A tagged image with what was decided about it."""

    id: str
    label: Label = Field(description="what the image shows, according to who sent it")
    verdict: str = Field(description="what the service answered then; empty if nothing")
    p_fake: float | None = Field(description="the probability of fake then; null if there was none")
    time: str = Field(description="when it was sent: UTC, ISO 8601")
    givers: int = Field(description="how many senders gave this image with this label; at most 21 are counted")
    state: State
    decisions: list[ReviewDecision] = Field(description="the oldest first")

    @classmethod
    def of(cls, tag: Tag) -> "ReviewTag":
        """The answer for a tag."""
        record = tag.record
        return cls.model_validate(
            {
                **{name: getattr(record, name) for name in ("id", "label", "verdict", "p_fake", "time")},
                "givers": tag.givers,
                "state": tag.state,
                "decisions": [ReviewDecision.of(decision) for decision in tag.decisions],
            }
        )


class ReviewTags(BaseModel):
    """Tags, the most informative first."""

    tags: list[ReviewTag]
    counts: dict[State, int] = Field(description="how many tags there are in each state")
    request_id: str


class ReviewAnswer(BaseModel):
    """A tag after a decision."""

    tag: ReviewTag
    request_id: str
