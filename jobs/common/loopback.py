"""Servers on this machine: a free port for one, requests to one, and waiting until it is ready.

Requests to this machine never go through a proxy, which could not reach it.
"""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

from detector_core.errors import DetectorError

HOSTS = ("localhost", "127.0.0.1", "::1")
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def exempt_from_proxies() -> None:
    """Adds this machine to ``no_proxy``, which libraries and child processes obey, whatever ``http_proxy`` says."""
    current = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    exempt = [host for host in (part.strip() for part in current.split(",")) if host]
    if exempt != ["*"]:  # everything is exempt already, and "*" works only alone
        exempt += [host for host in HOSTS if host not in exempt]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(exempt)  # some read only one of them


def free_port() -> int:
    """A port on 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(request: str | urllib.request.Request, timeout_s: float) -> bytes:
    """The body of the answer of a server on this machine. Raises OSError if it does not answer with 2xx in time."""
    with _DIRECTLY.open(request, timeout=timeout_s) as response:
        body: bytes = response.read()
        return body


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, within_s: float) -> None:
    """Waits until ``url`` answers with a 2xx status.

    Raises:
        DetectorError: the server ended, or was not ready in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DetectorError("the service ended before it was ready: see the messages above")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            send(url, timeout_s=5)
            return
        time.sleep(0.5)
    raise DetectorError(f"{url} was not ready within {within_s} s")
