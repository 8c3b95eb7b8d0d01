"""The only module that imports private modules of Ray, so that an upgrade of Ray is checked in one place.

Ray has no public API for these things. ``tests/jobs/common/test_ray_internals.py`` names what an upgrade has removed.
"""

from typing import Any

import ray
from ray._private import services
from ray._private.state import state
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback  # type: ignore[attr-defined]

__all__ = [
    "DatasetsCallback",
    "PlacementGroupCleanerCallback",
    "RayTrainCallback",
    "autoscaler_limits",
    "cancel_reservation",
    "get_or_create_autoscaling_coordinator",
    "requester_of",
    "running_ray_address",
]

USED = {
    "ray._private.services": ("find_bootstrap_address", "to find a Ray cluster that already runs on this machine"),
    "ray._private.state": ("state", "to read how far the autoscaler of a cluster may grow"),
    "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator": (
        "get_or_create_autoscaling_coordinator",
        "to cancel what a killed controller has reserved",
    ),
    "ray.train.v2._internal.callbacks.datasets": ("DatasetsCallback", "to start no process for Ray Data in a training"),
    "ray.train.v2._internal.callbacks.placement_group_callback": (
        "PlacementGroupCleanerCallback",
        "to leave out Ray Train's cleaner, which may end healthy runs",
    ),
    "ray.train.v2._internal.execution.callback": ("RayTrainCallback", "as the type of Ray Train's callbacks"),
}
"""Private module -> the name that is used from it, and why."""


def running_ray_address() -> str | None:
    """The address of the Ray cluster that ``ray start`` has started on this machine; None if there is none."""
    address: str | None = services.find_bootstrap_address(None)
    return address


def autoscaler_limits() -> dict[str, float]:
    """The CPUs, GPUs and other resources that the cluster may grow to; empty without an autoscaler."""
    limits: dict[str, Any] | None = state.get_max_resources_from_cluster_config()
    return {name: float(amount) for name, amount in (limits or {}).items()}


def requester_of(trainer: Any) -> str:
    """The name by which the controller of a trainer of Ray Train reserves cores for its workers."""
    return f"train-{trainer.train_run_context.run_id}"


def cancel_reservation(requester: str) -> None:
    """Gives back the cores that a controller has reserved.

    A controller that was killed does not do so. Its reservation lasts three minutes, in which an elastic run waits for
    the cores, with a controller that asks for them without a pause.
    """
    ray.get(get_or_create_autoscaling_coordinator().cancel_request.remote(requester))
