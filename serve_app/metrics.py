"""Prometheus metrics, exported by Ray, and one JSON log line per request.

Neither ever contains an image, a file name or an address. ``docs/grafana/service.json`` shows the metrics.
"""

import logging

from ray.serve import metrics

from detector_core.registry.canary import FAILURES, Comparison, Status
from serve_app.middleware import RequestEvent

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
BATCH_SIZES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
TENTHS = [number / 10 for number in range(1, 10)]
REQUESTS = "detector_requests"
VERDICTS = "detector_verdicts"
SECONDS_BY_STAGE = "detector_stage_seconds"
SCORES = "detector_p_fake"
BATCH_SIZE = "detector_batch_size"
MODEL_SECONDS = "detector_model_seconds"
WAITING = "detector_images_waiting"
BEHIND = "detector_model_behind"
DRIFT = "detector_score_drift"
CANARY_IMAGES = "detector_canary_images"
CANARY_SECONDS = "detector_canary_seconds"
CANARY_SCORES = "detector_canary_p_fake"
CANARY_FAILED = "detector_canary_failed"
_log = logging.getLogger("ray.serve")


class PersistentGauge:
    """A gauge that does not expire: Ray drops one that is not set for 20 s, so check_health refreshes it every 5 s."""

    def __init__(self, name: str, description: str) -> None:
        self._gauge = metrics.Gauge(name, description)
        self.set(0)

    def set(self, value: float) -> None:
        """Changes the value."""
        self._value = value
        self.refresh()

    def refresh(self) -> None:
        """Sets the same value again."""
        self._gauge.set(self._value)


class RequestMetrics:
    """The metrics of an ingress. :meth:`observe` is the observer that ``create_app`` expects."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(REQUESTS, "requests answered", ("route", "status"))  # type: ignore[arg-type]  # Ray's hint allows one tag only
        self._verdicts = metrics.Counter(VERDICTS, "images and frames predicted", ("verdict",))
        self._seconds = metrics.Histogram(SECONDS_BY_STAGE, "seconds per request and stage", SECONDS, ("stage",))
        self._scores = metrics.Histogram(SCORES, "calibrated p_fake of predicted images", TENTHS)
        self.waiting = PersistentGauge(
            WAITING, "images that this ingress has sent to the model and that have no answer yet"
        )

    def observe(self, event: RequestEvent) -> None:
        """Counts one request and writes its log line."""
        self._requests.inc(1, {"route": event.route, "status": str(event.status)})
        for stage, seconds in event.seconds.items():
            self._seconds.observe(max(seconds, 1e-6), {"stage": stage})
        for verdict in event.verdicts:
            self._verdicts.inc(1, {"verdict": verdict})
        for p_fake in event.p_fakes:
            self._scores.observe(max(p_fake, 1e-9))  # Ray rejects zero
        fields = {
            "request": event.request_id,
            "method": event.method,
            "path": event.route,
            "status_code": event.status,
            "images": event.images,
            "verdicts": list(event.verdicts),
            "bytes": event.bytes,
            "cpu_s": round(event.cpu_s, 3),
            "over_budget": event.over_budget,
            "ms": {stage: round(1000 * seconds, 2) for stage, seconds in event.seconds.items()},
        }
        _log.info("answered", extra=fields)


class ModelMetrics:
    """The metrics of a replica that runs the model."""

    def __init__(self) -> None:
        self._size = metrics.Histogram(BATCH_SIZE, "images per forward pass", BATCH_SIZES)
        self._seconds = metrics.Histogram(MODEL_SECONDS, "seconds per forward pass", SECONDS)
        self.behind = PersistentGauge(BEHIND, "1 while the live model cannot be loaded and the previous one is served")
        self.drift = PersistentGauge(
            DRIFT,
            "population stability index of the latest scores against the closest mix of the model's own test scores",
        )

    def record_batch(self, images: int, seconds: float) -> None:
        """Counts one forward pass."""
        self._size.observe(images)
        self._seconds.observe(max(seconds, 1e-6))


class CanaryMetrics:
    """The metrics of a canary on an ingress: each image that both versions have scored, by version."""

    def __init__(self) -> None:
        by_version = ("version",)
        tags = ("version", "outcome")
        self._images = metrics.Counter(CANARY_IMAGES, "images that a candidate was compared on", tags)  # type: ignore[arg-type]  # as above
        self._seconds = metrics.Histogram(CANARY_SECONDS, "seconds per compared image", SECONDS, by_version)
        self._scores = metrics.Histogram(CANARY_SCORES, "calibrated p_fake of compared images", TENTHS, by_version)
        self.failed = PersistentGauge(
            CANARY_FAILED, "1 after a candidate disagreed too often or could not be loaded, until the next canary"
        )

    def compared(self, comparison: Comparison) -> None:
        """Counts one image."""
        canary, candidate = comparison.canary, comparison.candidate
        outcome = "error" if candidate is None else "disagrees" if comparison.disagrees else "agrees"
        self._images.inc(1, {"version": canary.candidate, "outcome": outcome})
        for version, answer in ((canary.live, comparison.live), (canary.candidate, candidate)):
            if answer:
                self._seconds.observe(max(answer.seconds, 1e-6), {"version": version})
                self._scores.observe(max(answer.p_fake, 1e-9), {"version": version})

    def follow(self, status: Status | None) -> None:
        """Shows whether the latest canary failed."""
        self.failed.set(1 if status and status.state in FAILURES else 0)
