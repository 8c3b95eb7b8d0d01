"""The Ray Serve application: how many replicas of which deployment, and what each may use.

  serve run serve_app.app:build models=/srv/models         serves the live model of MODELS
  serve deploy serve_app/config.yaml                       the same on a cluster, see the file

Left out: starting Ray and the service (``jobs.serve``), and what the replicas do (:mod:`serve_app.deployments`).
"""

from typing import Any

from ray import serve

from detector_core import storage
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from serve_app.deployments import Detector, Ingress
from serve_app.settings import Scale, Settings

__all__ = ["Settings", "build"]

SURGE_PERCENT = 100
"""During an update a replica is stopped only once its replacement answers."""
LOOK_BACK_S = 12
"""The load is averaged over this time. Ray requires more than the default interval of reports, 10 s."""
LOGGING = {"encoding": "JSON", "enable_access_log": False}


def build(settings: Settings) -> serve.Application:
    """Builds the application. Every replica follows the live model itself (:mod:`serve_app.live_model`).

    Raises:
        BadConfig: the settings name no model or two, or nothing was promoted.
        BrokenArtifact: the folder is not a complete model.
    """
    settings.check()
    changes = {name: storage.absolute(str(getattr(settings, name))) for name in ("model", "models")}
    settings = settings.model_copy(update={name: where for name, where in changes.items() if getattr(settings, name)})
    describe(artifacts.find(settings.model) if settings.model else versions.live(str(settings.models)))
    together = settings.layout == "together"
    return Ingress.options(
        **_deployment_options(settings.detectors if together else settings.ingresses),
        ray_actor_options=_model_resources(settings) if together else {"num_cpus": settings.ingress_cpus},
        # The ingress itself refuses requests beyond http.max_open, in the form of every other error.
        max_ongoing_requests=2 * settings.http.max_open,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        max_queued_requests=settings.http.max_open,
    ).bind(None if together else _detector(settings), settings)


def _detector(settings: Settings) -> serve.Application:
    return Detector.options(
        **_deployment_options(settings.detectors),
        ray_actor_options=_model_resources(settings),
        # Everything that the ingresses may ask at a time, and one question about the model from each: batches are
        # filled from a queue in the replica. With a lower limit images would wait in Serve's router, which looks for a
        # free replica at growing intervals.
        max_ongoing_requests=(max(settings.max_queued, settings.max_batch_size) + 1) * settings.ingresses.max_replicas,
    ).bind(settings)


def _model_resources(settings: Settings) -> dict[str, float]:
    return {"num_cpus": settings.detector_cpus, "num_gpus": settings.detector_gpus}


def _deployment_options(scale: Scale) -> dict[str, Any]:
    return {
        "autoscaling_config": {**scale.model_dump(), "look_back_period_s": LOOK_BACK_S},
        "max_surge_percent": SURGE_PERCENT,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": 5.0,
        "logging_config": LOGGING,
    }
