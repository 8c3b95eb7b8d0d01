"""A running ``python -m jobs.serve`` for tests, in another process."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.common.loopback import free_port

START_S, STOP_S = 240, 120
MARK = "DETECTOR_TEST_MARK"


@dataclass
class Service:
    """A running ``python -m jobs.serve``.

    Attributes:
        mark: a value in the environment of each of its processes, to find them.
        home: its HOME folder.
        output: what it printed to stdout when it started.
        log: the file with its stderr.
        last_request: when :meth:`request` was last called, by ``time.monotonic``.
    """

    process: "subprocess.Popen[str]"
    port: int
    mark: str
    models: Path
    home: Path
    output: str
    log: Path
    last_request: float = 0.0

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> tuple[int, str]:
        """Sends a request; returns the status and the body of the response."""
        self.last_request = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def pids(self, text: bytes) -> list[int]:
        """The ids of its processes whose command line contains a text."""
        pids = []
        for pid in marked(self.mark):
            try:
                if text in Path(f"/proc/{pid}/cmdline").read_bytes():
                    pids.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return pids


def marked(mark: str) -> list[int]:
    """The ids of the processes with a mark in their environment."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                pids.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return pids


def with_descendants(pids: Iterable[int]) -> list[int]:
    """Processes and all that they have started, such as decoders, which inherit no mark."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(folder.name))
    family, waiting = list[int](), list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in family:
            family.append(pid)
            waiting += children.get(pid, [])
    return family


def start(models: Path, home: Path, log: Path, *more: str, **variables: str) -> Service:
    """Starts the service and waits until it prints that it is ready, or ends.

    Args:
        more: further words of its command line.
        variables: further variables of its environment, which has none of Ray otherwise.
    """
    port, mark = free_port(), uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve", "--models", str(models), "--port", str(port), *more],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**environment, MARK: mark, "HOME": str(home), **variables},
        )
    output, limit = "", threading.Timer(START_S, process.kill)
    limit.start()
    assert process.stdout
    while "Ctrl-C" not in output and (line := process.stdout.readline()):
        output += line
    limit.cancel()
    return Service(process, port, mark, models, home, output, log)


def stop(service: Service) -> None:
    """Ends the service and any process of it that is left."""
    try:
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGINT)
        service.process.wait(STOP_S)
    finally:
        for pid in marked(service.mark):
            os.kill(pid, signal.SIGKILL)
        if service.process.stdout:
            service.process.stdout.close()


@contextlib.contextmanager
def running(models: Path, home: Path, log: Path, *more: str, **variables: str) -> Iterator[Service]:
    """The service for the duration of a ``with`` block; started a second time if the machine was too busy."""
    service = start(models, home, log, *more, **variables)
    if "too busy" in log.read_text():
        stop(service)
        service = start(models, home, log, *more, **variables)
    try:
        assert "Ctrl-C" in service.output, log.read_text()
        yield service
    finally:
        stop(service)
