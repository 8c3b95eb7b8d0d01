"""What a person does with a cluster from a laptop: ``ray`` commands over ssh, and HTTP through the tunnel."""

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
"""For each command. A command takes seconds, but the machine may be busy."""
EXCLUDE = json.dumps({"excludes": [".venv", ".git", "/docs", "/tests"]})
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


class Laptop:
    """Sends commands to the cluster, times the steps of the scenario, and collects their results.

    Attributes:
        seconds: how long each step took.
        results: what the steps found out, for the JSON at the end.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.host = hosts, hosts[LAPTOP]
        self.shared = hosts.root / "shared"
        self.seconds: dict[str, float] = {}
        self.results: dict[str, Any] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step and prints its name when it has succeeded."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"ok  {self.seconds[name]:6.1f} s  {name}", file=sys.stderr, flush=True)

    def run(self, line: str, *, fails: bool = False) -> str:
        """Runs a shell line in the project's folder; its output, stdout and stderr.

        Raises:
            AssertionError: it failed; or with ``fails``, it did not.
        """
        command = self.host.command(f"cd {PROJECT}; export RAY_UP_enable_autoscaler_v2=0; {line}")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S)
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        if (done.returncode != 0) != fails:
            raise AssertionError(f"{line}\nended with {done.returncode}:\n{text[-6000:]}")
        return text

    def submit(self, *words: object, wait: bool = True, fails: bool = False, name: str = "") -> str:
        """Runs ``ray job submit -- WORDS``; the output, which has the job's log unless ``wait`` is false."""
        flags = f"--submission-id {name} " * bool(name) + "--no-wait " * (not wait)
        return self.run(
            f"ray job submit --address {DASHBOARD} --working-dir . --runtime-env-json '{EXCLUDE}' {flags}"
            f"-- {shlex.join(map(str, words))}",
            fails=fails,
        )

    def stop(self, name: str) -> None:
        """Runs ``ray job stop``."""
        self.run(f"ray job stop --address {DASHBOARD} {name}")

    def status(self, name: str) -> str:
        """PENDING, RUNNING, or one of ENDED."""
        return str(self._get_json(f"api/jobs/{name}")["status"])

    def log(self, name: str) -> str:
        """The log of a job so far."""
        return str(self._get_json(f"api/jobs/{name}/logs")["logs"])

    def get(self, url: str, *flags: str) -> int:
        """The HTTP status of a page; 0 if there is no response."""
        line = shlex.join(["curl", "-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", *flags, url])
        done = subprocess.run(self.host.command(line), capture_output=True, text=True, check=False)
        return int(done.stdout or 0)

    def auth_header(self) -> str:
        """The header that the dashboard requires."""
        return f"Authorization: Bearer {(self.host.root / 'tmp/home/.ray/auth_token').read_text().strip()}"

    def _get_json(self, path: str) -> dict[str, Any]:
        line = shlex.join(
            ["curl", "-sS", "-f", "-m", "60", "--retry", "3", "-H", self.auth_header(), f"{DASHBOARD}/{path}"]
        )
        answer: dict[str, Any] = json.loads(self.run(line))
        return answer


def wait_until(condition: Callable[[], Any], description: str, limit_s: float = LIMIT_S) -> Any:
    """Waits until ``condition`` returns something true and returns it. Raises AssertionError after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:g} s for: {description}")
        time.sleep(0.5)
    return result


def raylet_pid(host: Host) -> str:
    """The process id of Ray's daemon on a host; empty if it is not running."""
    done = subprocess.run(host.command("pgrep -o -x raylet"), capture_output=True, text=True, check=False)
    return done.stdout.strip()
