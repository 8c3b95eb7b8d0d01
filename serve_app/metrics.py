"""What operators see: Prometheus metrics on Ray's endpoint, and one line of JSON in the log for each request.

Neither ever holds an image, a file name or an address. ``docs/grafana/service.json`` draws the metrics.
"""

import logging
from collections.abc import Sequence

from ray.serve import metrics

from serve_app.middleware import Answered

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
BATCHES = [1, 2, 4, 8, 16, 32, 64]
TENTHS = [number / 10 for number in range(1, 10)]
REQUESTS = "detector_requests"
VERDICTS = "detector_verdicts"
SECONDS_BY_STAGE = "detector_stage_seconds"
SCORES = "detector_p_fake"
BATCH_SIZE = "detector_batch_size"
MODEL_SECONDS = "detector_model_seconds"
WAITING = "detector_images_waiting"
BEHIND = "detector_model_behind"
_log = logging.getLogger("ray.serve")


class Standing:
    """A gauge that stays: Ray forgets one that is not set again and again, so check_health, asked every 5 s, does."""

    def __init__(self, name: str, description: str) -> None:
        self._gauge = metrics.Gauge(name, description)
        self.set(0)

    def set(self, value: float) -> None:
        """From now on."""
        self._value = value
        self.again()

    def again(self) -> None:
        """Still."""
        self._gauge.set(self._value)


class RequestMetrics:
    """Of an ingress; :meth:`observe` is given to ``create_app``."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(REQUESTS, "requests answered", ("route", "status"))
        self._verdicts = metrics.Counter(VERDICTS, "images and frames judged", ("verdict",))
        self._seconds = metrics.Histogram(SECONDS_BY_STAGE, "seconds of a request by stage", SECONDS, ("stage",))
        self._scores = metrics.Histogram(SCORES, "calibrated p_fake of judged images", TENTHS)
        self.waiting = Standing(WAITING, "images that this ingress has asked the model about")

    def observe(self, event: Answered) -> None:
        """Counts one request and writes its line."""
        self._requests.inc(1, {"route": event.route, "status": str(event.status)})
        for stage, seconds in event.seconds.items():
            self._seconds.observe(max(seconds, 1e-6), {"stage": stage})
        for verdict in event.verdicts:
            self._verdicts.inc(1, {"verdict": verdict})
        for p_fake in event.p_fakes:
            self._scores.observe(max(p_fake, 1e-9))  # Ray takes no zero
        fields = {
            "request": event.request_id,
            "method": event.method,
            "path": event.route,
            "status_code": event.status,
            "images": event.images,
            "verdicts": list(event.verdicts),
            "ms": {stage: round(1000 * seconds, 2) for stage, seconds in event.seconds.items()},
        }
        _log.info("answered", extra=fields)


class ModelMetrics:
    """Of a detector."""

    def __init__(self) -> None:
        self._size = metrics.Histogram(BATCH_SIZE, "images of a forward pass", BATCHES)
        self._seconds = metrics.Histogram(MODEL_SECONDS, "seconds of a forward pass", SECONDS)
        self.behind = Standing(BEHIND, "1 while the live model cannot be loaded and the one before is served")

    def batch(self, images: Sequence[object], seconds: float) -> None:
        """Counts one forward pass."""
        self._size.observe(len(images))
        self._seconds.observe(max(seconds, 1e-6))
