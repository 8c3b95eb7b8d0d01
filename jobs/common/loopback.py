"""Local servers that a job starts: a free port for one, and waiting until it is ready."""

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

from detector_core.errors import DetectorError


def free_port() -> int:
    """A port on 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, within_s: float) -> None:
    """Waits until ``url`` answers with a 2xx status.

    Raises:
        DetectorError: the server ended, or was not ready in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DetectorError("the service ended before it was ready: see the messages above")
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=5),
        ):
            return
        time.sleep(0.5)
    raise DetectorError(f"{url} was not ready within {within_s} s")
