"""The descendants of a process: find them, wait for their end, kill them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path


def children(pid: int) -> dict[int, str]:
    """The command lines of all descendants of a process, by process id."""
    lines, todo = {}, [pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in task.read_text().split():
                    lines[int(child)] = command_line(int(child))
                    todo.append(int(child))
    return lines


def command_line(pid: int) -> str:
    """The command line of a process, its words separated by spaces."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def kill(processes: Mapping[int, str]) -> None:
    """Kills the processes that still have the same command line; ids are used again."""
    for pid, line in processes.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if command_line(pid) == line:
                os.kill(pid, signal.SIGKILL)


def wait_until_gone(pids: Iterable[int], limit_s: float) -> None:
    """Waits until none of the processes exists."""
    deadline = time.monotonic() + limit_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"left: {[Path(f'/proc/{pid}/cmdline').read_text() for pid in left]}"
        time.sleep(0.2)
