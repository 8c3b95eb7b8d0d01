"""Servers of this machine that a job starts and asks."""

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

from detector_core.errors import DetectorError


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, within_s: float) -> None:
    """Returns once ``url`` answers with 2xx.

    Raises:
        DetectorError: the server ended, or is not ready in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DetectorError("the service ended before it was ready: the line above says why")
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=5),
        ):
            return
        time.sleep(0.5)
    raise DetectorError(f"{url} was not ready within {within_s} s")
