"""What an operator may set: the arguments of ``serve_app.app:build``, the ``args`` of ``config.yaml``."""

from pydantic import Field

from detector_core.errors import BadConfig
from serve_app.schemas import Frozen, HttpSettings

LEFT_TO_INGRESSES = 0.1


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
    max_batch_size: int = Field(16, ge=1, description="most pictures of one forward pass")
    batch_wait_s: float = Field(
        0.003, gt=0, description="how long a batch waits to fill; above 0, or each has one picture"
    )
    max_queued: int = Field(64, ge=1, description="pictures that one ingress has asked about at once; beyond: 503")
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
        return {
            "CPU": self.detectors.min_replicas * self.detector_cpus + self.ingresses.min_replicas * self.ingress_cpus,
            "GPU": self.detectors.min_replicas * self.detector_gpus,
        }
