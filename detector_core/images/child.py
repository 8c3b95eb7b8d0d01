"""Child processes that decode files of strangers, with limits that the kernel enforces.

A few kilobytes can make a decoder compute for minutes or allocate gigabytes, and decoders crash now and then. In a
child neither harms the caller: the child has a budget of CPU time and memory, opens no files or connections, inherits
no environment variables, and is killed when nobody waits for it any more. On systems other than Linux it only has a
budget of CPU time.
"""

import atexit
import functools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from detector_core import errors
from detector_core.errors import BadData
from detector_core.images.budget import OverBudget

ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Variables that a child gets: those that Python may need to start. Any other may be a secret."""
_CODE: Final = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import child; child()"


class Cancelled(Exception):
    """Nobody waits for the result any more."""


class Crashed(Exception):
    """A child ended unexpectedly; the message says how."""


class Cancellation:
    """Tells a thread that nobody waits for its work any more, and ends what the thread waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self.cancelled = False

    def cancel(self) -> None:
        """Calls the registered callbacks. Later registrations and checks raise Cancelled."""
        with self._lock:
            self.cancelled = True
            for callback in self._callbacks:
                callback()

    def check(self) -> None:
        """Raises Cancelled after :meth:`cancel`."""
        if self.cancelled:
            raise Cancelled

    @contextmanager
    def on_cancel(self, callback: Callable[[], object]) -> Iterator[None]:
        """Registers a callback for the duration of a ``with`` block. Raises Cancelled."""
        with self._lock:
            self.check()
            self._callbacks.append(callback)
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


class Child:
    """A running child.

    Attributes:
        cpu_s: CPU time of its whole life, once it has ended, in seconds.

    Args:
        module: the child calls ``child()`` of this module.
        arguments: begin at ``sys.argv[2]`` there.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CODE.format(module), json.dumps(sys.path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._lock = threading.Lock()
        self.pid, self.cpu_s = self._process.pid, 0.0

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Sends bytes, and with ``end`` that nothing follows. If the child has ended, :meth:`read` says so."""
        with suppress(BrokenPipeError):
            self._stdin.write(data)
            self._stdin.flush()
        if end:
            with suppress(BrokenPipeError):
                self._stdin.close()

    def read(self) -> dict[str, Any]:
        """The next message of the child.

        Raises:
            OverBudget: the child has used up its CPU time.
            Crashed: it has ended for another reason.
        """
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        fields: dict[str, Any] = json.loads(line)
        return fields

    def read_into(self, buffer: Any) -> None:
        """Fills a buffer with the bytes after a message. Raises as :meth:`read`."""
        view = memoryview(buffer).cast("B")
        stdout: Any = self._stdout  # a BufferedReader, unlike its type hint
        if stdout.readinto(view) != len(view):
            raise self._ended()

    def kill(self) -> None:
        """Kills the child, from any thread; does nothing if it has ended."""
        with self._lock:
            if self._process.returncode is None:
                os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kills the child if it still runs, and waits until it has ended."""
        self.kill()
        self._wait()
        for pipe in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):  # what was not sent yet
                pipe.close()

    def has_ended(self) -> bool:
        """Whether the child has ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _ended(self) -> Exception:
        """The error for a child that has closed its output, which it does only when it ends."""
        status = self._wait()
        if status == -signal.SIGPROF:
            return OverBudget()
        return Crashed(signal.Signals(-status).name if status < 0 else f"exit code {status}")

    def _wait(self) -> int:
        """The exit code, or the negative number of the signal that ended the child."""
        if self._process.returncode is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:  # so that nobody kills another process that gets the same id
                _, status, usage = os.wait4(self.pid, 0)
                self._process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s = usage.ru_utime + usage.ru_stime
        return self._process.returncode


class WarmChildren:
    """Children of one module that do one task after another: as many as threads use at a time.

    A child that crashed, exceeded its budget or was cancelled is not used again. Those that wait end with the process.

    Attributes:
        idle: the children that wait for a task.

    Args:
        module: see :class:`Child`; the child's first message says that it is ready.
        purpose: what the children do, for the error of one that does not start.
    """

    def __init__(self, module: str, purpose: str) -> None:
        self._module, self._purpose = module, purpose
        self._lock = threading.Lock()
        self.idle: list[Child] = []
        atexit.register(self.stop_idle)

    def warm_up(self) -> None:
        """Makes sure that a child is ready; starting one takes a few tenths of a second."""
        self.give_back(self.borrow(), reusable=True)

    def borrow(self) -> Child:
        """An idle child, or a new one. Raises RuntimeError if it does not start."""
        with self._lock:
            idle = self.idle.pop() if self.idle else None
        if idle and idle.has_ended():  # killed by somebody else, perhaps because memory was short
            idle.stop()
            idle = None
        return idle or self._start()

    def give_back(self, borrowed: Child, *, reusable: bool) -> None:
        """Keeps a child for the next task, or stops it."""
        if reusable:
            with self._lock:
                self.idle.append(borrowed)
        else:
            borrowed.stop()

    def stop_idle(self) -> None:
        """Ends the children that nobody uses."""
        with self._lock:
            while self.idle:
                self.idle.pop().stop()

    def _start(self) -> Child:
        started = Child(self._module)
        try:
            raise_reported(started.read())
        except (Crashed, OverBudget) as error:
            started.stop()
            raise RuntimeError(f"the process that {self._purpose} does not start: {error}") from None
        return started


def message(**fields: object) -> bytes:
    """A message between parent and child: one line of JSON."""
    return json.dumps(fields).encode() + b"\n"


def raise_reported(fields: dict[str, Any]) -> None:
    """Raises the error that a message reports, if it does: a subclass of BadData, or RuntimeError for a bug."""
    if "bug" in fields:
        raise RuntimeError(fields["bug"])
    if "error" in fields:
        kind = getattr(errors, fields["error"])
        assert issubclass(kind, BadData)
        raise kind(fields["message"])


def limit_cpu(seconds: float) -> None:  # pragma: no cover - in a child, which cannot write a coverage file
    """In a child: ends it after so many more seconds of CPU time of all its threads; infinity ends no child."""
    signal.setitimer(signal.ITIMER_PROF, 0 if math.isinf(seconds) else max(seconds, 1e-3))


class MemoryLimit:  # pragma: no cover - used in a child process, which cannot write a coverage file
    """In a child: limits its memory, and forbids core dumps, files and connections from the start."""

    def __init__(self) -> None:
        try:
            import resource

            self._statm = Path("/proc/self/statm").open("rb", buffering=0)  # noqa: SIM115 -- stays open
        except (ImportError, OSError):
            return
        self._limit_memory = functools.partial(resource.setrlimit, resource.RLIMIT_AS)
        self._page = resource.getpagesize()
        for name, limit in (
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, self._statm.fileno() + 1),  # those that are open now
        ):
            resource.setrlimit(name, (limit, limit))

    def allow(self, count: int) -> None:
        """Limits the child to ``count`` more bytes than it has now."""
        if hasattr(self, "_statm"):
            self._statm.seek(0)
            self._limit_memory((int(self._statm.read().split()[0]) * self._page + count, -1))
