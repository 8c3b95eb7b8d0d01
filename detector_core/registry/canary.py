"""A canary: a candidate version that answers about a share of the images, and is compared with the live one on them.

Both versions score an image that the candidate answers about. Whoever looks (a replica of a service, ``jobs.promote``)
adds up what all replicas have counted and decides by the same rule (:func:`judge`). Not in this module: where that is
kept (:mod:`detector_core.registry.canaries`), and which replica scores what (:mod:`serve_app.canary`).
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from detector_core.evaluation import intervals

MAX_SHARE: Final = 0.5
MAX_DISAGREEMENT: Final = 0.05
"""Largest proportion of images on which the two verdicts may differ, unless another one is given."""
MIN_IMAGES: Final = 30
"""Nothing is decided on fewer images."""

Outcome = Literal["", "went_back", "not_loaded", "promoted", "live_changed", "stopped"]
"""How a canary ended; empty while it runs. ``went_back``: the verdicts differed too often. ``not_loaded``: a replica
could not load the candidate. ``promoted``: the candidate is live. ``live_changed``: another version became live, by a
promotion or a rollback. ``stopped``: by an operator."""
State = Literal["comparing", "agrees", "disagrees", "went_back", "not_loaded", "promoted", "live_changed", "stopped"]
FAILURES: Final = ("went_back", "not_loaded")
"""The outcomes that somebody should know about."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was compared, as sums over images.

    Attributes:
        images: number of images that both versions were asked about.
        disagreements: how many of them got different verdicts, or none from the candidate.
        errors: how many of these got none, because the candidate failed or took too long.
        difference, absolute_difference: p_fake of the candidate minus that of the live version.
        live_s, candidate_s: seconds that the predictions took.
    """

    images: int = 0
    disagreements: int = 0
    errors: int = 0
    difference: float = 0.0
    absolute_difference: float = 0.0
    live_s: float = 0.0
    candidate_s: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        sums = {name: value + getattr(other, name) for name, value in dataclasses.asdict(self).items()}
        return Counts(**sums)


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A candidate on trial.

    Attributes:
        candidate, live: the two versions.
        share: proportion of the images that the candidate answers about.
        max_disagreement: proportion of these on which the verdicts may differ.
        started, ended: UTC, in ISO 8601; ``ended`` is empty while it runs.
        outcome, reason: how it ended; empty while it runs.
        counts: the totals at its end; zeros while it runs.
    """

    id: str
    candidate: str
    live: str
    share: float
    max_disagreement: float
    started: str
    ended: str = ""
    outcome: Outcome = ""
    reason: str = ""
    counts: Counts = Counts()

    def __post_init__(self) -> None:
        if not 0 < self.share <= MAX_SHARE:
            raise ValueError(f"share is {self.share}: it must be above 0 and at most {MAX_SHARE}")
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"outcome is {self.outcome!r}: it must be one of {', '.join(get_args(Outcome)[1:])}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :func:`dataclasses.asdict`. Raises ValueError, TypeError, KeyError."""
        return cls(**{**values, "counts": Counts(**values["counts"])})

    def digest(self, data: bytes) -> bytes:
        """The identity of an image file in this canary."""
        return hashlib.sha256(self.id.encode() + data).digest()

    def takes(self, digest: bytes) -> bool:
        """Whether the candidate answers about the file with this :meth:`digest`."""
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a version said about an image, and how many seconds that took."""

    verdict: str
    p_fake: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What both versions said about one image; ``candidate`` is None if it failed or was late."""

    canary: Canary
    live: Answer
    candidate: Answer | None

    @property
    def disagrees(self) -> bool:
        """Whether the candidate has another verdict, or none."""
        return self.candidate is None or self.candidate.verdict != self.live.verdict

    def counts(self) -> Counts:
        """This image as counts."""
        if self.candidate is None:
            return Counts(images=1, disagreements=1, errors=1, live_s=self.live.seconds)
        difference = self.candidate.p_fake - self.live.p_fake
        return Counts(
            images=1,
            disagreements=int(self.disagrees),
            difference=difference,
            absolute_difference=abs(difference),
            live_s=self.live.seconds,
            candidate_s=self.candidate.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Status:
    """A canary and what was compared so far.

    Attributes:
        low, high: 95% interval of the proportion of images on which the verdicts differ, which holds at every look.
    """

    canary: Canary
    counts: Counts
    state: State
    low: float
    high: float

    @classmethod
    def of(cls, canary: Canary, counts: Counts) -> Self:
        """The status of a canary, from the totals over all replicas."""
        low, high = intervals.anytime_interval(counts.disagreements, counts.images)
        state: State = canary.outcome or judge(counts.images, low, high, canary.max_disagreement)
        return cls(canary=canary, counts=counts, state=state, low=low, high=high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a job's last line."""
        return {**dataclasses.asdict(dataclasses.replace(self.canary, counts=self.counts)), "state": self.state}

    def __str__(self) -> str:
        counts, limit = self.counts, self.canary.max_disagreement
        errors = f", {counts.errors} of them because the candidate failed" if counts.errors else ""
        return (
            f"the verdicts differ on {counts.disagreements} of {counts.images} images{errors} "
            f"(95% interval {self.low:.1%} to {self.high:.1%}; at most {limit:.1%} is allowed)"
        )


def judge(images: int, low: float, high: float, max_disagreement: float) -> State:
    """Agrees or disagrees once the whole interval is on one side of what is allowed, otherwise still comparing."""
    if images >= MIN_IMAGES and low > max_disagreement:
        return "disagrees"
    if images >= MIN_IMAGES and high <= max_disagreement:
        return "agrees"
    return "comparing"
