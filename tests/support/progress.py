"""Waiting for progress instead of the clock: a busy machine may be slow, but whatever works shows it."""

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

QUIET_S = 180
"""A process that writes nothing for this long is stuck. Jobs say every 15 to 20 s what they wait for."""
LIMIT_S = 800
"""The most that anything is waited for; pytest's own limit for a test is a little longer."""
POLL_S = 0.05


class Stuck(AssertionError):
    """There was no progress for too long."""


class Process(subprocess.Popen[bytes]):
    """A process whose stdout and stderr are read while it runs.

    Attributes:
        heard: when it last wrote something, on the monotonic clock.
    """

    def __init__(self, command: Sequence[object], **how: Any) -> None:
        words = [str(word) for word in command]
        super().__init__(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
        self.started = self.heard = time.monotonic()
        self._out, self._err = bytearray(), bytearray()
        streams = ((self.stdout, self._out), (self.stderr, self._err))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[bytes], text: bytearray) -> None:
        with stream:
            while data := stream.read1(65536):  # type: ignore[attr-defined]
                text += data
                self.heard = time.monotonic()

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return self._out.decode(errors="replace")

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._err.decode(errors="replace")

    def finish(self) -> tuple[int, str, str]:
        """Waits for its end as long as it writes something; exit code, stdout and stderr.

        Raises:
            Stuck: it wrote nothing for QUIET_S, or had not ended after LIMIT_S. It is killed.
        """
        began = self.heard = time.monotonic()
        for reader in self._readers:
            while reader.is_alive():
                reader.join(1)
                self._check(self.heard, began, "it has not ended")
        return self.wait(LIMIT_S), self.out, self.err

    def wait_until(self, condition: Callable[[], object], progress: Callable[[], object] = lambda: None) -> None:
        """Waits until a condition holds, as long as the process writes something or ``progress`` changes.

        Raises:
            AssertionError: the process ended first; the message has what it wrote.
            Stuck: there was no progress for QUIET_S, or the condition did not hold after LIMIT_S. It is killed.
        """
        began = changed = self.heard = time.monotonic()
        state = progress()
        while not condition():
            if self.poll() is not None:
                raise AssertionError(f"it ended with {self.returncode}: {self.finish()[1:]}")
            if (latest := progress()) != state:
                state, changed = latest, time.monotonic()
            self._check(max(changed, self.heard), began, f"no progress beyond {state!r}")
            time.sleep(POLL_S)

    def _check(self, last_progress: float, began: float, problem: str) -> None:
        now = time.monotonic()
        if now - last_progress > QUIET_S or now - began > LIMIT_S:
            self.kill()
            self.wait()
            for reader in self._readers:
                reader.join(5)  # longer only if its own children hold the stream open
            words = f"{problem}; silent for {now - last_progress:.0f} s, waited {now - began:.0f} s for {self.args}"
            raise Stuck(f"{words}\n{self.out[-2000:]}\n{self.err[-4000:]}")


def run(command: Sequence[object], **how: Any) -> "subprocess.CompletedProcess[str]":
    """Like ``subprocess.run`` with captured text, but waits as :meth:`Process.finish` does."""
    process = Process(command, **how)
    code, out, err = process.finish()
    return subprocess.CompletedProcess(process.args, code, out, err)
