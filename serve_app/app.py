"""The Ray Serve application: which deployments it has, how many replicas of each, and their resources.

  serve run serve_app.app:build models=/srv/models         serves the live model of MODELS
  serve deploy serve_app/config.yaml                       the same on a cluster, see the file

Not in this module: starting Ray and the service (``jobs.serve``), and what the replicas do
(:mod:`serve_app.deployments`).
"""

from typing import Any, cast

from ray import serve

from detector_core import storage
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from serve_app.deployments import Detector, Ingress
from serve_app.settings import Scale, Settings

__all__ = ["Settings", "build"]

SURGE_PERCENT = 100
"""During an update a replica is stopped only after its replacement answers."""
LOOK_BACK_S = 12
"""The load is averaged over this time, which Ray requires to exceed the interval of its reports, 10 s."""
LOGGING = {"encoding": "JSON", "enable_access_log": False}


def build(settings: Settings) -> serve.Application:
    """Builds the application. Every replica follows the live model itself (:mod:`serve_app.live_model`).

    Raises:
        BadConfig: the settings name no model or two models, or no model was promoted.
        BrokenArtifact: the folder is not a complete model.
    """
    settings.check()
    paths = {name: getattr(settings, name) for name in ("model", "models")}
    settings = settings.model_copy(update={name: storage.absolute(path) for name, path in paths.items() if path})
    describe(artifacts.find(settings.model) if settings.model else versions.live(str(settings.models)))
    together = settings.together
    ingress = cast("serve.Deployment", Ingress)  # the decorator's type hints hide what it returns
    return ingress.options(
        **_deployment_options(settings.detectors if together else settings.ingresses),
        ray_actor_options=_model_resources(settings) if together else {"num_cpus": settings.ingress_cpus},
        # The ingress itself refuses requests beyond http.max_open, with the same error body as every other refusal.
        max_ongoing_requests=2 * settings.http.max_open,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        max_queued_requests=settings.http.max_open,
    ).bind(None if together else _detector(settings), settings)


def _detector(settings: Settings) -> serve.Application:
    return Detector.options(
        **_deployment_options(settings.detectors),
        ray_actor_options=_model_resources(settings),
        # All images that the ingresses may send at a time, to the live version and to a candidate, plus one request for
        # the model's description from each: batches are filled from a queue in the replica. With a lower limit images
        # would wait in Serve's router, which looks for a free replica at growing intervals.
        max_ongoing_requests=(2 * max(settings.max_queued, settings.max_batch_size) + 1)
        * settings.ingresses.max_replicas,
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
