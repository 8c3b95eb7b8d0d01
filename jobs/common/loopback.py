"""Servers on this machine: free ports for them, requests to one, and waiting until it is ready.

Requests to this machine never go through a proxy, which could not reach it.
"""

import contextlib
import errno
import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request

from detector_core.errors import DetectorError

HOSTS = ("localhost", "127.0.0.1", "::1")
PORTS = range(20_000, 32_768)
"""Below what Linux uses for outgoing connections, and above what Ray uses for its workers."""
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def exempt_from_proxies() -> None:
    """Adds this machine to ``no_proxy``, which libraries and child processes obey, whatever ``http_proxy`` says."""
    current = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    exempt = [host for host in (part.strip() for part in current.split(",")) if host]
    if exempt != ["*"]:  # everything is exempt already, and "*" works only alone
        exempt += [host for host in HOSTS if host not in exempt]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(exempt)  # some read only one of them


def free_port() -> int:
    """A port of this machine that is not in use (see :func:`free_ports`)."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ports of this machine that are not in use.

    A server binds its port only seconds later. Until then, the system must not give the port to an outgoing connection,
    so the ports lie below the range that those come from.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            probe = stack.enter_context(socket.socket())  # open until all are chosen
            with contextlib.suppress(OSError):
                probe.bind(("", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(errno.EADDRINUSE, f"fewer than {count} ports from {PORTS[0]} to {PORTS[-1]} are free")


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
