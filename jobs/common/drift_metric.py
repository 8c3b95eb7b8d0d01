"""Reads the drift of a running service's scores from where Prometheus reads it."""

import http.client
import math
import re
import urllib.request

from detector_core.errors import BadConfig, StorageUnavailable

LIMIT = 0.25
"""Above this, the scores have changed much (:mod:`detector_core.evaluation.drift`): the alert fires, too."""
TIMEOUT_S = 10.0
_LINE = re.compile(r"^(?:ray_)?detector_score_drift(?:\{.*\})?\s+(\S+)", re.MULTILINE)


def check_address(url: str) -> None:
    """Returns if this is an HTTP address. Raises BadConfig otherwise."""
    if not url.startswith(("http://", "https://")):
        raise BadConfig(f"--metrics {url}: give the address of Ray's metrics, such as http://HOST:PORT/metrics")


def read(url: str) -> float:
    """The largest drift of all replicas that a metrics endpoint reports; 0 if it reports none.

    Raises:
        BadConfig: see :func:`check_address`.
        StorageUnavailable: nothing answers there.
    """
    check_address(url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            text = response.read().decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StorageUnavailable(f"--metrics {url} cannot be read ({error})") from None
    values = [float(value) for value in _LINE.findall(text)]
    return max((value for value in values if math.isfinite(value)), default=0.0)
