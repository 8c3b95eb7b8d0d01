"""The environment variables that Ray reads when it is first imported; ``jobs/__init__.py`` sets them before that.

A value that the user has set is kept. Ray listens on all network interfaces, whatever it is configured to. A private
Ray is therefore protected by a token, which exists only in the environment of this process and its children.
"""

import os
import secrets

DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a host is lost, an elastic run first asks for as many workers as before, because Ray's view of the cluster
    # may be up to 20 s old. It waits this long for them before it continues with fewer; Ray's default is 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # How often replicas report their load, which autoscaling follows; Ray's default is 10 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.proxy:middlewares",
    "RAY_USAGE_STATS_ENABLED": "0",
}


PRIVATE_DEFAULTS = {
    # One more process for every run, which asks whether the provider of a node will soon take it back. No provider
    # takes a part of this machine.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""For a private Ray cluster only."""
IN_WORKER = "RAY_RAYLET_PID"
"""Set by Ray in its workers, which know no RAY_ADDRESS."""


def prepare() -> None:
    """Sets the defaults and, unless this process joins a cluster or is one of its workers, those of a private one.

    The workers of a private cluster have inherited what its driver has set.
    """
    joins_cluster = bool(os.environ.get("RAY_ADDRESS")) or IN_WORKER in os.environ
    for name, value in (DEFAULTS if joins_cluster else DEFAULTS | PRIVATE_DEFAULTS).items():
        os.environ.setdefault(name, value)
    if not joins_cluster and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def private_token() -> str:
    """The token of this process's private Ray cluster; empty if the process joins a cluster."""
    return "" if os.environ.get("RAY_ADDRESS") else os.environ.get("RAY_AUTH_TOKEN", "")
