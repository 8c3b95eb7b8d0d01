"""CPU time of a process and its descendants, by kind of process: neighbors on the machine hardly change it."""

import os
from pathlib import Path

KINDS = {
    "haproxy": "HAProxy",
    "ServeReplica": "replica",
    "ProxyActor": "Ray's proxy",
    "HAProxyManager": "Ray Serve",
    "ServeController": "Ray Serve",
    "gcs_server": "Ray",
    "raylet": "Ray",
    "dashboard": "Ray",
    "log_monitor": "Ray",
    "runtime_env": "Ray",
    "ray::": "Ray",
    "/ray/": "Ray",
}
"""A text in a process's command line, and what the process is called; the first that matches counts."""
OTHER = "server"


def milliseconds(root: int) -> dict[str, float]:
    """CPU milliseconds that each kind of process below ``root``, and it itself, has used so far.

    What processes that have ended had used is not included.
    """
    used: dict[str, float] = {}
    remaining = [root]
    while remaining:
        folder = Path("/proc", str(remaining.pop()))
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            children = [task.read_text() for task in folder.glob("task/*/children")]
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        kind = next((name for text, name in KINDS.items() if text in command), OTHER)
        user, system = int(fields[11]), int(fields[12])
        used[kind] = used.get(kind, 0.0) + 1000 * (user + system) / os.sysconf("SC_CLK_TCK")
        remaining += [int(child) for text in children for child in text.split()]
    return used


def per_image(before: dict[str, float], after: dict[str, float], images: int) -> dict[str, float]:
    """The milliseconds that each kind of process has used for an image in the meantime."""
    return {kind: (value - before.get(kind, 0.0)) / max(images, 1) for kind, value in sorted(after.items())}
