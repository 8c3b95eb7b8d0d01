"""A Ray to run on: the cluster that ``RAY_ADDRESS`` or ``ray job submit`` gives, else one on this machine alone.

The local one listens on the loopback address only and ends with the job. Token authentication is left as the
environment says; for the private local Ray it is off unless ``RAY_AUTH_MODE`` asks for it.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from detector_core.errors import NoRoom

OBJECT_STORE_BYTES = 400 * 2**20


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[None]:
    """Connects to Ray, or starts a private one, for the length of a ``with`` block."""
    shared = "RAY_ADDRESS" in os.environ
    # Read by Ray when it is imported or by the processes it starts; a value that the user set is kept.
    settings = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if not shared:
        settings["RAY_AUTH_MODE"] = "disabled"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    import ray

    try:
        if shared:
            ray.init(logging_level=logging.WARNING)
        else:
            ray.init(
                include_dashboard=dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                _node_ip_address="127.0.0.1",
            )
    except ConnectionError as error:
        raise NoRoom(f"no Ray answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.shutdown()


def check_room(*, cpus: float, gpus: float = 0, purpose: str) -> None:
    """Fails at once where Ray would wait for ever. Call inside :func:`connect`.

    Raises:
        NoRoom: the cluster as a whole has fewer cores or GPUs than asked.
    """
    import ray

    has = ray.cluster_resources()
    for name, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > has.get(name, 0):
            raise NoRoom(
                f"{purpose} needs {asked:g} {name}, and this Ray has {has.get(name, 0):g}: "
                f"ask for less, or add nodes to the cluster"
            )
