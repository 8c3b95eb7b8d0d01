"""Environment variables that Ray reads once, when it is first imported. Imported before Ray by ``jobs/__init__.py``.

A value that the user has set is kept. Ray listens on every address of a machine, whatever it is configured to; a
private Ray is therefore protected by token authentication, with a token that exists only in the environment of this
process and its children.
"""

import os
import secrets

DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a host is lost, an elastic run may first ask for as many workers as before, because Ray's view of the
    # cluster is up to 20 s old. It waits this long for them before it continues with those that are left; Ray's
    # default is 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # How often replicas report their load, which autoscaling follows; Ray's default is 10 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare() -> None:
    """Sets the defaults, and a token for a private Ray unless this process joins a cluster."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def private_token() -> str:
    """The token of the private Ray of this process; empty if it joins a cluster."""
    return "" if os.environ.get("RAY_ADDRESS") else os.environ.get("RAY_AUTH_TOKEN", "")
