"""What the processes of a service hold: memory and open files, by kind of process, sampled while it works."""

import os
import re
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.serving import marked

# What a command line holds -> what the process is called here; the first that fits.
KINDS = (
    (r"ServeReplica:detector:Ingress", "ingress"),
    (r"ServeReplica:detector:Detector", "detector"),
    (r"ProxyActor", "Serve proxy"),
    (r"ServeController", "Serve controller"),
    (r"gcs_server", "control store"),
    (r"raylet/raylet", "raylet"),
    (r"-m serve_app", "python -m serve_app"),
    (r"dashboard|agent|log_monitor|monitor\.py", "dashboard and agents"),
    (r"ray::", "other workers"),
)


@dataclass(frozen=True, kw_only=True)
class Held:
    """At one moment, by kind of process: how many there are, their own memory in bytes, their open files."""

    seconds: float
    processes: Counter[str]
    memory: Counter[str]
    handles: Counter[str]


def look(mark: str, seconds: float = 0.0) -> Held:
    """All processes that carry a mark."""
    held = Held(seconds=seconds, processes=Counter(), memory=Counter(), handles=Counter())
    for pid in marked(mark):
        folder = Path(f"/proc/{pid}")
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            own = re.search(r"RssAnon:\s+(\d+) kB", (folder / "status").read_text())
            handles = len(os.listdir(folder / "fd"))  # noqa: PTH208 -- names only
        except (FileNotFoundError, ProcessLookupError):
            continue
        if own is None:  # it has just ended
            continue
        kind = next((name for pattern, name in KINDS if re.search(pattern, line)), "others")
        held.processes[kind] += 1
        held.memory[kind] += int(own[1]) * 1024
        held.handles[kind] += handles
    return held


@dataclass
class Watch:
    """Looks every ``every_s`` seconds for the length of a ``with`` block."""

    mark: str
    every_s: float
    samples: list[Held] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self._started, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self.every_s):
            self.samples.append(look(self.mark, time.monotonic() - self._started))

    def between(self, begin: float, end: float) -> Held:
        """Medians of the samples between two shares of the time, such as 0.9 and 1."""
        whole = self.samples[-1].seconds
        picked = [held for held in self.samples if begin * whole <= held.seconds <= end * whole]
        kinds = sorted({kind for held in picked for kind in held.processes})
        middle = {
            what: Counter(
                {kind: int(statistics.median(getattr(held, what)[kind] for held in picked)) for kind in kinds}
            )
            for what in ("processes", "memory", "handles")
        }
        return Held(seconds=picked[0].seconds, **middle)
