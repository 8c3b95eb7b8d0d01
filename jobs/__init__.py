"""One verb a file: parse, call ``detector_core`` on Ray, print one JSON line. Start with ``python -m jobs.demo``.

Ray reads these settings once, when it is first imported, so they are made here; what the user has set is kept.
Ray listens on every address of a machine, whatever it is told. A private Ray is therefore closed by token
authentication, with a token that exists only in the environment of this process and of its children.
"""

import os
import secrets

_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a host is lost an elastic run may first ask for the workers of before: Ray's view of the cluster is up to
    # 20 s old. It then waits this long in vain, with Ray's default 60 s, before it goes on with what is left.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
if not os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in os.environ:
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
