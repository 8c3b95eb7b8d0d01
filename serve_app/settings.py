"""The settings of the service: the arguments of ``serve_app.app:build`` and the ``args`` of ``config.yaml``.

The field descriptions are the documentation of the settings. ``python -m serve_app.settings_table`` prints them, and
writes them into ``docs/http-api.md``.
"""

import math
from ipaddress import ip_network
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector_core.errors import BadConfig
from detector_core.images.decode import MAX_PIXELS
from serve_app.front import Front

CORES_FOR_INGRESSES = 0.1
LARGEST_REQUESTS = 8
"""How many requests of the largest allowed size one process holds at a time, unless max_open_bytes is set."""
Faces = Literal["auto", "on", "off"]
Layout = Literal["auto", "apart", "together"]
Format = Literal["JPEG", "PNG", "WEBP", "AVIF", "GIF", "HEIC", "BMP", "TIFF"]
Proxy = Literal["haproxy", "ray"]


class Frozen(BaseModel):
    """Immutable, and refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Frozen):
    """Limits of one request."""

    max_bytes: int = Field(20 * 2**20, gt=0, description="Maximum size of a request with images, in bytes.")
    max_files: int = Field(10, gt=0, description="Maximum number of images per request.")
    max_pixels: int = Field(
        MAX_PIXELS,
        gt=0,
        description="Maximum number of pixels of an image (width times height), checked before it is decoded.",
    )
    max_faces: int = Field(
        5, gt=0, description="Maximum number of faces scored per image; the largest faces are scored."
    )
    cpu_s: float = Field(
        10, gt=0, description="Maximum CPU time for decoding the images of a request and searching faces, in seconds."
    )
    max_video_bytes: int = Field(50 * 2**20, gt=0, description="Maximum size of a request with a clip, in bytes.")
    max_video_s: float = Field(60, gt=0, description="Maximum length of a clip, in seconds.")
    video_cpu_s: float = Field(
        15,
        gt=0,
        description="Maximum CPU time for decoding a clip, and as much again for searching faces in it, in seconds.",
    )
    frames: int = Field(
        16, ge=0, description="Maximum number of frames scored per clip, and the default. 0 turns clips off."
    )

    @property
    def largest(self) -> int:
        """Bytes of the largest request that is allowed."""
        return max(self.max_bytes, self.max_video_bytes if self.frames else 0)


class HttpSettings(Frozen):
    """How the service answers over HTTP."""

    limits: Limits = Field(Limits(), description="Limits of one request.")
    timeout_s: float = Field(
        30, gt=0, description="Time limit of a request in seconds, including the time to read its body."
    )
    max_open: int = Field(
        128,
        gt=0,
        description="Maximum number of requests that an ingress replica handles at a time; others are answered with "
        "503.",
    )
    max_open_bytes: int = Field(
        0,
        ge=0,
        description="Maximum size of all request bodies that an ingress replica holds at a time, in bytes; requests "
        "beyond that are answered with 503. 0 allows eight requests of the maximum size.",
    )
    faces: Faces = Field(
        "auto",
        description="Default of the request parameter `faces`: `on`, `off`, or `auto`, which is `on` unless the model "
        "was trained on generated demo data.",
    )
    formats: list[Format] = Field(
        ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "HEIC"],
        min_length=1,
        description="Image formats that are accepted. `HEIC` works where the package pi-heif is installed. `BMP` and "
        "`TIFF` can be added; browsers and phones do not send them.",
    )
    allow_url: bool = Field(
        False,
        description='Whether clients may send `{"url": ...}`. The service then downloads images from public addresses.',
    )
    api_keys_file: str | None = Field(
        None,
        description="File with the valid API keys, one per line; `#` starts a comment. Changes take effect within two "
        "seconds. Without it, no key is required. On a cluster the file must exist at this path on every node.",
    )
    requests_per_minute: int = Field(
        0,
        ge=0,
        description="Maximum number of requests per minute from one client address, counted by each ingress replica. "
        "0 means no limit.",
    )
    trusted_proxies: list[str] = Field(
        [], description="Addresses or networks of proxies whose `X-Forwarded-For` header is trusted."
    )
    cors_origins: list[str] = Field([], description="Origins whose web pages may call the service (CORS).")
    signers_file: str | None = Field(
        None,
        description="File with the certificates (PEM) of those whose signatures are trusted in `provenance`, such as "
        "the C2PA trust list. Without it, a valid signature is `signed`, never `listed_signer`. On a cluster the file "
        "must exist at this path on every node.",
    )
    feedback_folder: str | None = Field(
        None, description="Folder for the images that users send as feedback. Without it, feedback is off."
    )
    feedback_bytes: int = Field(
        2**30, gt=0, description="Maximum size of all feedback, in bytes; more is answered with 503."
    )
    operator_keys_file: str | None = Field(
        None,
        description="File with the keys of those who may review tagged images at `/review`, one per line, as in "
        "`api_keys_file`. Needs `feedback_folder`. Without it, there is no such page. On a cluster the file must exist "
        "at this path on every node.",
    )
    batches_folder: str | None = Field(
        None,
        description="Folder for batches (`POST /v1/batches`), which all replicas share. Without it, there are none.",
    )
    batch_files: int = Field(1000, gt=0, description="Maximum number of files in a batch.")
    batch_files_per_client: int = Field(
        10_000,
        gt=0,
        description="Maximum number of files of one client (key or address) that wait in batches at a time.",
    )
    batch_keep_s: float = Field(
        86_400, gt=0, description="How long the results of a batch are kept after its end, in seconds."
    )

    @property
    def capacity_bytes(self) -> int:
        """``max_open_bytes``, or its default if it is 0."""
        return self.max_open_bytes or LARGEST_REQUESTS * self.limits.largest

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.operator_keys_file and not self.feedback_folder:
            raise ValueError("operator_keys_file is for the review of feedback: set feedback_folder, too")
        if self.capacity_bytes < self.limits.largest:
            raise ValueError(
                f"max_open_bytes is {self.max_open_bytes}: it must be 0 or at least {self.limits.largest}, the size of "
                "the largest request that limits allow"
            )
        return self


class FrontSettings(Frozen):
    """What stands between the clients and the replicas."""

    proxy: Proxy = Field(
        "haproxy",
        description="`haproxy`: the HAProxy that comes with Ray Serve. `ray`: Ray's own proxy in Python, which takes "
        "several times as much CPU and has none of the limits below.",
    )
    connections: int = Field(2000, ge=10, description="Maximum number of connections at a time.")
    connections_per_address: int = Field(
        200,
        ge=1,
        description="Maximum number of connections of one client address at a time (with IPv6, of one /64 network); "
        "further ones are closed at once. Addresses in `http.trusted_proxies` are not limited.",
    )
    header_bytes: int = Field(32 * 2**10, ge=1024, description="Maximum size of the headers of a request, in bytes.")
    header_s: int = Field(10, ge=1, description="Time limit for the headers of a request, in seconds.")


class Scale(Frozen):
    """How many replicas a deployment has; the number follows the requests that each replica is handling."""

    min_replicas: int = Field(1, ge=1, description="Minimum number of replicas.")
    max_replicas: int = Field(1, ge=1, description="Maximum number of replicas.")
    target_ongoing_requests: float = Field(
        8, gt=0, description="Mean number of requests per replica above which a replica is added."
    )
    upscale_delay_s: float = Field(5, ge=0, description="Seconds of high load before a replica is added.")
    downscale_delay_s: float = Field(120, ge=0, description="Seconds of low load before a replica is removed.")


class Settings(Frozen):
    """The arguments of ``build``: ``key=value`` for ``serve run``, ``args`` for ``serve deploy``."""

    models: str | None = Field(
        None, description="Folder or URI that `jobs.promote` writes to; the service follows its live model."
    )
    model: str | None = Field(None, description="Run folder or model folder of one fixed model, instead of `models`.")
    poll_s: float = Field(5, gt=0, description="Seconds between two looks at MODELS, for a live model and a canary.")
    max_batch_size: int = Field(16, ge=1, description="Maximum number of images in one forward pass.")
    batch_wait_s: float = Field(
        0.003,
        ge=0,
        description="Maximum time, in seconds, that images wait for others although the model is free. Only after a "
        "pass with several images; a single image never waits.",
    )
    max_queued: int = Field(
        64,
        ge=1,
        description="Maximum number of images of an ingress replica that wait for the model at a time; requests beyond"
        " that are answered with 503.",
    )
    layout: Layout = Field(
        "auto",
        description="`together`: each replica reads requests and runs the model; the settings of `detectors` apply to "
        "it. `apart`: ingress replicas read requests and send crops to detectors. `auto`: `apart` if the detectors "
        "have GPUs, else `together`.",
    )
    detectors: Scale = Field(
        Scale(target_ongoing_requests=16),
        description="Replicas that run the model; with `layout: together` the only ones.",
    )
    detector_cpus: float = Field(
        0.9,
        ge=0,
        description="CPU cores reserved for each detector. 0.9 leaves room for an ingress replica on one core.",
    )
    detector_gpus: float = Field(
        0, ge=0, description="GPUs reserved for each detector; several detectors share one with a fraction such as 0.5."
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of a forward pass. 0 means `detector_cpus`, or all cores if that is below 1.",
    )
    ingresses: Scale = Field(
        Scale(max_replicas=2, target_ongoing_requests=32),
        description="Ingress replicas (only with `layout: apart`): they receive, check and decode requests, find "
        "faces, and answer.",
    )
    ingress_cpus: float = Field(
        CORES_FOR_INGRESSES / 2,
        ge=0,
        description="CPU cores reserved for each ingress replica (only with `layout: apart`).",
    )
    http: HttpSettings = Field(HttpSettings(), description="How the service answers over HTTP.")
    front: FrontSettings = Field(FrontSettings(), description="What stands between the clients and the replicas.")

    @property
    def together(self) -> bool:
        """Whether each replica reads requests and runs the model."""
        return self.layout == "together" or (self.layout == "auto" and not self.detector_gpus)

    def check(self) -> None:
        """Checks settings against each other. Raises BadConfig."""
        if (self.model is None) == (self.models is None):
            raise BadConfig("set either models=FOLDER (the service follows its live model) or model=FOLDER, not both")
        limits = self.http.limits
        if self.max_queued < limits.max_files * limits.max_faces:
            raise BadConfig(
                f"max_queued is {self.max_queued}: it must be at least http.limits.max_files x http.limits.max_faces = "
                f"{limits.max_files} x {limits.max_faces}, or the largest request could never be answered"
            )
        for name, scale in (("detectors", self.detectors), ("ingresses", self.ingresses)):
            if scale.min_replicas > scale.max_replicas:
                raise BadConfig(
                    f"{name}.min_replicas is {scale.min_replicas}: it must be at most {name}.max_replicas, which is "
                    f"{scale.max_replicas}"
                )

    def front_limits(self, bind: str | None = None) -> Front:
        """What HAProxy is told. Raises BadConfig if a trusted proxy is neither an address nor a network.

        Args:
            bind: the address to listen on; None for the one that the replicas listen on.
        """
        try:
            trusted = tuple(str(ip_network(proxy, strict=False)) for proxy in self.http.trusted_proxies)
        except ValueError as error:
            raise BadConfig(f"http.trusted_proxies: {error}") from None
        return Front(
            bind=bind,
            connections=self.front.connections,
            connections_per_address=self.front.connections_per_address,
            header_bytes=self.front.header_bytes,
            header_s=self.front.header_s,
            body_bytes=self.http.limits.largest,
            body_s=math.ceil(self.http.timeout_s),
            trusted_proxies=trusted,
        )

    def minimum_resources(self) -> dict[str, float]:
        """CPUs and GPUs that the smallest number of replicas needs."""
        ingresses = 0 if self.together else self.ingresses.min_replicas * self.ingress_cpus
        return {
            "CPU": self.detectors.min_replicas * self.detector_cpus + ingresses,
            "GPU": self.detectors.min_replicas * self.detector_gpus,
        }
