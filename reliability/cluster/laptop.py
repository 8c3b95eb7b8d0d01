"""What a person says to a cluster from a laptop: ``ray`` commands through ssh, and HTTP through the tunnel."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reliability.cluster.hosts import PROJECT, Host, Hosts

HEAD, ONE, TWO, LAPTOP = "head", "one", "two", "laptop"
DASHBOARD = "http://127.0.0.1:8265"
LIMIT_S = 480
"""For every single step; a step takes seconds, but the machine may have other work."""
EXCLUDE = json.dumps({"excludes": [".venv", ".git", "/docs", "/tests"]})
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


class Laptop:
    """The cluster's hosts, what is said to it from the laptop, and the seconds of each chapter."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.host = hosts, hosts[LAPTOP]
        self.shared = hosts.root / "shared"
        self.seconds: dict[str, float] = {}
        self.found: dict[str, Any] = {}

    @contextmanager
    def chapter(self, name: str) -> Iterator[None]:
        """Times a step and says how it went."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"ok  {self.seconds[name]:6.1f} s  {name}", file=sys.stderr, flush=True)

    def say(self, line: str, *, fails: bool = False) -> str:
        """Runs a line in the project's folder; what it wrote."""
        command = self.host.command(f"cd {PROJECT}; export RAY_UP_enable_autoscaler_v2=0; {line}")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S)
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        if (done.returncode != 0) != fails:
            raise AssertionError(f"{line}\nended with {done.returncode}:\n{text[-6000:]}")
        return text

    def submit(self, *words: object, wait: bool = True, fails: bool = False, name: str = "") -> str:
        """``ray job submit -- WORDS``; the job's log."""
        flags = f"--submission-id {name} " * bool(name) + "--no-wait " * (not wait)
        return self.say(
            f"ray job submit --address {DASHBOARD} --working-dir . --runtime-env-json '{EXCLUDE}' {flags}"
            f"-- {shlex.join(map(str, words))}",
            fails=fails,
        )

    def stop(self, name: str) -> None:
        """``ray job stop``."""
        self.say(f"ray job stop --address {DASHBOARD} {name}")

    def status(self, name: str) -> str:
        """PENDING, RUNNING, or how a job ended."""
        return str(self._ask(f"api/jobs/{name}")["status"])

    def log(self, name: str) -> str:
        """The log of a job so far."""
        return str(self._ask(f"api/jobs/{name}/logs")["logs"])

    def get(self, url: str, *flags: str) -> int:
        """The HTTP status of a page; 0 without an answer."""
        line = shlex.join(["curl", "-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", *flags, url])
        done = subprocess.run(self.host.command(line), capture_output=True, text=True, check=False)
        return int(done.stdout or 0)

    def token(self) -> str:
        """The header that opens the dashboard."""
        return f"Authorization: Bearer {(self.host.root / 'tmp/home/.ray/auth_token').read_text().strip()}"

    def _ask(self, path: str) -> dict[str, Any]:
        line = shlex.join(["curl", "-sS", "-f", "-m", "60", "--retry", "3", "-H", self.token(), f"{DASHBOARD}/{path}"])
        answer: dict[str, Any] = json.loads(self.say(line))
        return answer


def until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """What ``holds`` returns when it is true at last."""
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.5)
    return found


def raylet(host: Host) -> str:
    """The process id of Ray's daemon on a host; empty where there is none."""
    done = subprocess.run(host.command("pgrep -o -x raylet"), capture_output=True, text=True, check=False)
    return done.stdout.strip()
