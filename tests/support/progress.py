"""Waiting for progress instead of the clock: a busy machine may be slow, but whatever works shows it."""

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

QUIET_S = 180
"""A process that writes nothing for this long is stuck. Jobs say every 15 to 20 s what they wait for."""
LIMIT_S = 800
"""The most that anything is waited for; pytest's own limit for a test is a little longer."""
POLL_S = 0.05


class Stuck(AssertionError):
    """There was no progress for too long."""


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Waits for a process to end as long as it writes something; its exit code, stdout and stderr.

    Args:
        process: with pipes for stdout and stderr. It is killed if it is stuck.

    Raises:
        Stuck: it wrote nothing for QUIET_S, or had not ended after LIMIT_S.
    """
    texts = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream and not stream.closed}
    try:
        _read(process, texts)
    finally:
        for stream in texts:
            stream.close()
        process.wait(LIMIT_S)
    out, err = (bytes(texts.get(stream, b"")).decode() for stream in (process.stdout, process.stderr))
    return process.returncode, out, err


def _read(process: "subprocess.Popen[str]", texts: dict[Any, bytearray]) -> None:
    """Reads the streams to their ends. Kills the process and raises Stuck when there is no progress."""
    started = heard = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(timeout=1):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                texts[key.fileobj] += data
                heard = time.monotonic()
            now = time.monotonic()
            if now - heard > QUIET_S or now - started > LIMIT_S:
                process.kill()
                end = "\n".join(text.decode(errors="replace")[-2000:] for text in texts.values())
                raise Stuck(f"silent for {now - heard:.0f} s, running for {now - started:.0f} s: {process.args}\n{end}")


def run(command: Sequence[object], **how: Any) -> "subprocess.CompletedProcess[str]":
    """Like ``subprocess.run`` with captured text, but waits as :func:`finish` does."""
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    code, out, err = finish(process)
    return subprocess.CompletedProcess(words, code, out, err)


def wait_until(
    condition: Callable[[], object], process: "subprocess.Popen[str]", progress: Callable[[], object] = lambda: None
) -> None:
    """Waits until a condition holds, as long as a process runs and ``progress`` changes now and then.

    Raises:
        AssertionError: the process ended first; what it wrote is in the message.
        Stuck: ``progress`` did not change for QUIET_S, or the condition did not hold after LIMIT_S.
    """
    started = changed = time.monotonic()
    state = progress()
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}: {finish(process)[1:]}")
        now = time.monotonic()
        if (latest := progress()) != state:
            state, changed = latest, now
        if now - changed > QUIET_S or now - started > LIMIT_S:
            process.kill()
            raise Stuck(f"no progress beyond {state!r} for {now - changed:.0f} s: {finish(process)[1:]}")
        time.sleep(POLL_S)
