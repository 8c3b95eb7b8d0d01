"""jobs.common.ray_environment: what a process gets depends on whether it starts a private Ray cluster."""

import os

import pytest

from jobs.common import ray_environment

WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


@pytest.mark.parametrize(
    ("environment", "is_private"),
    [({}, True), ({"RAY_ADDRESS": "10.0.0.1:6379"}, False), ({"RAY_RAYLET_PID": "7"}, False)],
)
def test_only_a_driver_of_a_private_ray_gets_its_defaults_and_a_token(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_private: bool
) -> None:
    """A worker of a cluster that believed itself private would not hear that its node will be taken back."""
    monkeypatch.setattr(os, "environ", dict(environment))
    ray_environment.prepare()
    assert ray_environment.DEFAULTS.items() <= os.environ.items()
    assert (WATCHER in os.environ, "RAY_AUTH_TOKEN" in os.environ) == (is_private, is_private)
