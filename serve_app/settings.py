"""What an operator may set: the arguments of ``serve_app.app:build``, the ``args`` of ``config.yaml``."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector_core.errors import BadConfig
from detector_core.images.decode import MAX_PIXELS

LEFT_TO_INGRESSES = 0.1
LARGEST_AT_ONCE = 8
"""Requests of the largest size that one process has in hand, unless max_open_bytes says more or less."""
Faces = Literal["auto", "on", "off"]


class Frozen(BaseModel):
    """Refuses what it does not know and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Frozen):
    """What one request may bring."""

    max_bytes: int = Field(20 * 2**20, gt=0, description="of the whole request")
    max_files: int = Field(10, gt=0)
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="of one image; checked before it is decoded")
    max_faces: int = Field(5, gt=0, description="judged in one image, the largest first")
    max_video_bytes: int = Field(50 * 2**20, gt=0, description="of a request with a clip")
    max_video_s: float = Field(60, gt=0, description="length of a clip")
    frames: int = Field(
        16, ge=0, description="most frames of a clip that are judged, and how many without ?frames=; 0: no video"
    )

    @property
    def largest(self) -> int:
        """Bytes of the largest request."""
        return max(self.max_bytes, self.max_video_bytes if self.frames else 0)


class HttpSettings(Frozen):
    """How an operator runs the service; the defaults are safe on the open internet."""

    limits: Limits = Limits()
    timeout_s: float = Field(30, gt=0, description="most seconds of one request, reading it included")
    max_open: int = Field(128, gt=0, description="requests that one ingress has in hand at once; beyond: 503")
    max_open_bytes: int = Field(
        0, ge=0, description="bytes of their bodies, likewise; 0: room for eight of the largest that limits allow"
    )
    faces: Faces = Field(
        "auto", description="look for faces; auto: unless the model was trained on generated demo data"
    )
    allow_url: bool = Field(False, description='answer {"url"}: the service then fetches from public addresses')
    api_keys_file: str | None = Field(
        None, description="one key a line, # begins a comment; read again when it changes"
    )
    rate_per_minute: int = Field(0, ge=0, description="requests of one client address and replica; 0: no limit")
    trusted_proxies: list[str] = Field([], description="addresses or networks whose X-Forwarded-For is believed")
    cors_origins: list[str] = Field([], description="origins whose pages may ask; none by default")
    feedback_folder: str | None = Field(None, description="keeps what users give; without it there is no feedback")
    feedback_bytes: int = Field(2**30, gt=0, description="most that the feedback folder may hold")

    @property
    def room_bytes(self) -> int:
        """``max_open_bytes``, reckoned where it is 0."""
        return self.max_open_bytes or LARGEST_AT_ONCE * self.limits.largest

    @model_validator(mode="after")
    def _holds_the_largest(self) -> Self:
        if self.room_bytes < self.limits.largest:
            raise ValueError(
                f"max_open_bytes is {self.max_open_bytes}: limits allow a request of {self.limits.largest}"
            )
        return self


class Scale(Frozen):
    """How many replicas a deployment has: it follows the requests that each of them has in hand."""

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(8, gt=0, description="more than this on each replica adds another")
    upscale_delay_s: float = Field(5, ge=0, description="how long there must be too many before one is added")
    downscale_delay_s: float = Field(120, ge=0, description="how long there must be too few before one is removed")


class Settings(Frozen):
    """The arguments of ``build``: ``key=value`` of ``serve run``, ``args`` of ``serve deploy``."""

    models: str | None = Field(None, description="folder or URI that jobs.promote fills; its live model is followed")
    model: str | None = Field(None, description="instead: one run or model folder")
    follow_s: float = Field(5, gt=0, description="how often `live` is looked at")
    max_batch_size: int = Field(16, ge=1, description="most images of one forward pass")
    batch_wait_s: float = Field(
        0.003, gt=0, description="how long a batch waits to fill; above 0, or each has one image"
    )
    max_queued: int = Field(64, ge=1, description="images that one ingress has asked about at once; beyond: 503")
    layout: Literal["apart", "together"] = Field(
        "apart",
        description="apart: ingresses ask detectors; together: each replica reads and judges, scaled as `detectors`",
    )
    detectors: Scale = Scale(target_ongoing_requests=16)
    detector_cpus: float = Field(0.9, ge=0, description="cores of each; with the ingress one core is enough")
    detector_gpus: float = Field(0, ge=0, description="GPUs of each; a fraction shares one")
    threads: int = Field(
        0, ge=0, description="threads of the network; 0: detector_cpus, every core of the machine below one"
    )
    ingresses: Scale = Scale(max_replicas=2, target_ongoing_requests=32)
    ingress_cpus: float = Field(LEFT_TO_INGRESSES / 2, ge=0)
    http: HttpSettings = HttpSettings()

    def check(self) -> None:
        """Raises BadConfig unless exactly one model is named, and least is not above most."""
        if (self.model is None) == (self.models is None):
            raise BadConfig("name either models=FOLDER (its live model is followed) or model=FOLDER")
        limits = self.http.limits
        if self.max_queued < limits.max_files * limits.max_faces:
            raise BadConfig(
                f"max_queued is {self.max_queued}: one request may ask about {limits.max_files} files with "
                f"{limits.max_faces} faces each, which it must hold (http.limits)"
            )
        for name, scale in (("detectors", self.detectors), ("ingresses", self.ingresses)):
            if scale.min_replicas > scale.max_replicas:
                raise BadConfig(f"{name}: min_replicas {scale.min_replicas} is above max_replicas {scale.max_replicas}")

    def least(self) -> dict[str, float]:
        """CPUs and GPUs of the least number of replicas."""
        ingresses = self.ingresses.min_replicas * self.ingress_cpus if self.layout == "apart" else 0
        return {
            "CPU": self.detectors.min_replicas * self.detector_cpus + ingresses,
            "GPU": self.detectors.min_replicas * self.detector_gpus,
        }
