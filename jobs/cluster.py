"""A Ray to run on: the cluster that ``RAY_ADDRESS`` or ``ray job submit`` gives, else one on this machine alone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from detector_core.errors import NoRoom
from jobs.cli import say

OBJECT_STORE_BYTES = 400 * 2**20
START_ATTEMPTS = 3


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[None]:
    """Connects to Ray, or starts a private one, for the length of a ``with`` block.

    Raises:
        NoRoom: no Ray answers at ``RAY_ADDRESS``.
    """
    shared = bool(os.environ.get("RAY_ADDRESS"))
    start = {} if shared else {"include_dashboard": dashboard, "object_store_memory": OBJECT_STORE_BYTES}
    on_term = signal.getsignal(signal.SIGTERM)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Workers speak to people through the board and their errors, not through copied log lines.
            context = ray.init(logging_level="warning", log_to_driver=False, **start)
            break
        except ConnectionError as error:
            raise NoRoom(f"no Ray answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
        except Exception as error:
            # Ray raises a bare Exception when its processes do not come up within its fixed 30 s.
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if attempt == START_ATTEMPTS:
                raise NoRoom(f"Ray did not start in {attempt} attempts of 30 s: this machine is too busy") from None
            say(f"Ray did not start within 30 s, this machine is busy: attempt {attempt + 1} of {START_ATTEMPTS}")
    signal.signal(signal.SIGTERM, on_term)  # ray.init puts its own in place, which exits without a word
    if dashboard and context.dashboard_url:
        token = "" if shared else os.environ.get("RAY_AUTH_TOKEN", "")
        say(f"Ray dashboard: http://{context.dashboard_url}" + (f" (it asks for this token: {token})" if token else ""))
    try:
        yield
    finally:
        ray.shutdown()


def check_room(*, cpus: float, gpus: float = 0, purpose: str) -> None:
    """Fails at once where Ray would wait for ever. Call inside :func:`connect`.

    Raises:
        NoRoom: the cluster as a whole has fewer cores or GPUs than asked.
    """
    has = ray.cluster_resources()
    for name, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > has.get(name, 0):
            raise NoRoom(
                f"{purpose} needs {asked:g} {name}, and this Ray has {has.get(name, 0):g}: "
                f"ask for less, or add nodes to the cluster"
            )
