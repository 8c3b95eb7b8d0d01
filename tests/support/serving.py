"""A running ``python -m jobs.serve`` for tests: started, asked, stopped whatever state it is in."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.common.loopback import free_port

START_S, STOP_S = 240, 120
MARK = "DETECTOR_TEST_MARK"


@dataclass
class Service:
    """A running ``python -m jobs.serve``; ``mark`` is in the environment of each of its processes."""

    process: "subprocess.Popen[str]"
    port: int
    mark: str
    models: Path
    home: Path
    said: str
    log: Path

    def ask(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def pids(self, words: bytes) -> list[int]:
        """Its processes whose command line has these words."""
        found = []
        for pid in marked(self.mark):
            try:
                if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


def marked(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def start(models: Path, home: Path, log: Path, *more: str) -> Service:
    """Starts the service and waits until it says that it serves, or ends."""
    port, mark = free_port(), uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve", "--models", str(models), "--port", str(port), *more],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**environment, MARK: mark, "HOME": str(home)},
        )
    said, limit = "", threading.Timer(START_S, process.kill)
    limit.start()
    assert process.stdout
    while "Ctrl-C" not in said and (line := process.stdout.readline()):
        said += line
    limit.cancel()
    return Service(process, port, mark, models, home, said, log)


def stop(service: Service) -> None:
    """Ends it, whatever state it is in."""
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
def running(models: Path, home: Path, log: Path, *more: str) -> Iterator[Service]:
    """The service for the length of a ``with`` block; where Ray was not up within its fixed 30 s, one more try."""
    service = start(models, home, log, *more)
    if "too busy" in log.read_text():
        stop(service)
        service = start(models, home, log, *more)
    try:
        assert "Ctrl-C" in service.said, log.read_text()
        yield service
    finally:
        stop(service)
