"""The memory and open files of a service's processes, by kind of process, sampled while it runs."""

import os
import re
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.serving import marked, with_descendants

# A pattern of the command line and the name of the process here; the first match counts.
PROCESS_KINDS = (
    (r"ServeReplica", "replica"),
    (r"detector_core\.images", "decoders"),
    (r"/haproxy -db", "HAProxy"),
    (r"ProxyActor|HAProxyManager", "Serve proxy"),
    (r"ServeController", "Serve controller"),
    (r"gcs_server", "control store"),
    (r"raylet/raylet", "raylet"),
    (r"-m jobs.serve", "python -m jobs.serve"),
    (r"dashboard|agent|log_monitor|monitor\.py", "dashboard and agents"),
    (r"ray::", "other workers"),
)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One sample; the counters are by kind of process.

    Attributes:
        seconds: when it was taken, since the monitor started.
        processes: number of processes.
        memory: private memory in bytes.
        open_files: number of open file descriptors.
    """

    seconds: float
    processes: Counter[str]
    memory: Counter[str]
    open_files: Counter[str]

    @property
    def memory_mib(self) -> float:
        """The private memory of all processes in MiB."""
        return self.memory.total() / 2**20


def measure(mark: str, seconds: float = 0.0) -> Usage:
    """Samples all processes that carry a mark (see ``tests.support.serving``), and their descendants."""
    usage = Usage(seconds=seconds, processes=Counter(), memory=Counter(), open_files=Counter())
    for pid in with_descendants(marked(mark)):
        folder = Path(f"/proc/{pid}")
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            private = re.search(r"RssAnon:\s+(\d+) kB", (folder / "status").read_text())
            open_files = len(os.listdir(folder / "fd"))  # noqa: PTH208 -- names only
        except (FileNotFoundError, ProcessLookupError):
            continue
        if private is None:  # the process has just ended
            continue
        kind = next((name for pattern, name in PROCESS_KINDS if re.search(pattern, line)), "others")
        usage.processes[kind] += 1
        usage.memory[kind] += int(private[1]) * 1024
        usage.open_files[kind] += open_files
    return usage


@dataclass
class UsageMonitor:
    """Samples the processes that carry a mark, every ``every_s`` seconds, for the length of a ``with`` block."""

    mark: str
    every_s: float
    samples: list[Usage] = field(default_factory=list)

    def __enter__(self) -> "UsageMonitor":
        self._started, self._stopping = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="usage", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopping.wait(self.every_s):
            self.samples.append(measure(self.mark, time.monotonic() - self._started))

    def median(self, begin: float, end: float) -> Usage:
        """The medians of the samples between two fractions of the whole time, such as 0.9 and 1."""
        total_s = self.samples[-1].seconds
        samples = [sample for sample in self.samples if begin * total_s <= sample.seconds <= end * total_s]
        kinds = sorted({kind for sample in samples for kind in sample.processes})
        medians = {
            counter: Counter(
                {kind: int(statistics.median(getattr(sample, counter)[kind] for sample in samples)) for kind in kinds}
            )
            for counter in ("processes", "memory", "open_files")
        }
        return Usage(seconds=samples[0].seconds, **medians)
