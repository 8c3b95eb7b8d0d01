"""CPU time of the processes that decode and predict: the replicas and what they start."""

import os
from pathlib import Path

from tests.support.serving import Service, with_descendants

REPLICA = b"ServeReplica"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(service: Service) -> float:
    """CPU time of the replicas and all processes below them. One that has ended is in the figure of its parent."""
    return sum(_seconds(pid) for pid in with_descendants(service.pids(REPLICA)))


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return TICK_S * sum(int(ticks) for ticks in fields[11:15])
