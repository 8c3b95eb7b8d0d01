"""A Ray head node for tests: started as a user would, with its own ports, token and folder, and stopped by its id."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jobs.common.loopback import free_ports
from tests.support.processes import children, kill

BIN = Path(sys.executable).parent
START_S = 240
PORTS = (
    "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "metrics-export-port", "runtime-env-agent-port", "object-manager-port", "node-manager-port",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        address: HOST:PORT for RAY_ADDRESS.
        dashboard: the URL for ``ray job submit``; empty without a dashboard.
        env: the environment of a process that may use this cluster, the token included, RAY_ADDRESS not.
        folder: Ray's files; deleted at the end.
    """

    address: str
    dashboard: str
    env: dict[str, str]
    folder: Path


@contextmanager
def head_node(*, cpus: int = 2, dashboard: bool = False, token: str = "", **environment: str) -> Iterator[Head]:
    """Starts ``ray start --head`` for the length of a ``with`` block.

    Args:
        token: opens the cluster; a new one if empty.
        environment: more variables for the cluster and all its processes.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the path of a socket has at most 107 bytes
    gcs_port, *others = free_ports(1 + len(PORTS))
    ports = dict(zip(PORTS, others, strict=True))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "PATH": f"{BIN}:{env['PATH']}",
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token or secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",  # a worker that no task needs costs a second
        "OMP_WAIT_POLICY": "passive",  # threads that wait for others leave the cores to other tests
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TMPDIR": str(folder),
        **environment,
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", str(cpus)]
    command += ["--object-store-memory", "300000000", "--port", str(gcs_port), "--node-ip-address", "127.0.0.1"]
    command += ["--dashboard-host", "127.0.0.1", "--include-dashboard", str(dashboard).lower()]
    command += ["--temp-dir", str(folder / "ray"), "--disable-usage-stats"]
    command += [part for name, port in ports.items() for part in (f"--{name}", str(port))]
    with tempfile.TemporaryFile("w+") as log:
        ray = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{ports['dashboard-port']}" if dashboard else ""
            head = Head(f"127.0.0.1:{gcs_port}", url, env, folder)
            deadline = time.monotonic() + START_S
            while not _is_ready(head):
                running = ray.poll() is None and time.monotonic() < deadline
                assert running, _logs(log, folder)
                time.sleep(0.2)
            yield head
        finally:
            processes = children(ray.pid)
            ray.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ray.wait(timeout=5)
            kill(processes)
            ray.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def _is_ready(head: Head) -> bool:
    if not (head.folder / "ray" / "ray_current_cluster").exists():  # the last thing that `ray start` writes
        return False
    listing = [str(BIN / "ray"), "job", "list", "--address", head.dashboard]
    return not head.dashboard or subprocess.run(listing, env=head.env, capture_output=True, check=False).returncode == 0


def _logs(log: IO[str], folder: Path) -> str:
    """What ``ray start`` printed, and the last lines of what Ray's processes printed; the folder does not stay."""
    log.seek(0)
    texts = {"ray start": log.read()}
    logs = folder / "ray" / "session_latest" / "logs"
    for path in sorted([*logs.glob("*.err"), *logs.glob("raylet.out")]):
        lines = [line for line in path.read_text(errors="replace").splitlines() if "(+0x" not in line]  # a stack trace
        texts[path.name] = "\n".join(lines[-10:])
    return "\n".join(f"{name}:\n{text}" for name, text in texts.items() if text)
