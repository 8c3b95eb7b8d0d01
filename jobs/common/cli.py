"""What every job's command line shares: help that teaches, errors in one line, a result as the last line.

Progress and messages go to stderr; stdout carries one JSON object. A job exits 0 only on success, 1 on an error that
it names, 130 when it was interrupted. One that is killed, or ended by a library, cannot speak: a small process beside
it says so in its place.
"""

import argparse
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from detector_core.errors import DetectorError
from detector_core.storage import object_stores

Job = Callable[[argparse.Namespace], dict[str, Any]]
GO_ON = "start Ray again if need be, then the same command, with --resume where the job has it"
DIED = f"error: the job died: it was killed, for want of memory perhaps, or Ray ended it without a word; {GO_ON}"
WAIT_MESSAGE_EVERY_S = 15.0
_speaker: "subprocess.Popen[bytes] | None" = None


def parser(verb: str, module_doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the job module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m jobs.{verb}", description=module_doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def say(message: str) -> None:
    """One message for people, on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Until the block ends, says every WAIT_MESSAGE_EVERY_S seconds on stderr what the job waits for."""
    done, started = threading.Event(), time.monotonic()

    def repeat() -> None:
        while not done.wait(WAIT_MESSAGE_EVERY_S):
            say(f"waiting for {what}, {time.monotonic() - started:.0f} s so far")

    thread = threading.Thread(target=repeat, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(job: Job, arguments: argparse.Namespace) -> NoReturn:
    """Runs a job, prints its result as the last line on stdout and exits."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        stack.enter_context(_spoken_for())
        result_stream = stack.enter_context(_stdout_kept_clean())
        try:
            result = job(arguments)
        except DetectorError as error:
            _fail(str(error))
        except OSError as error:
            if object_stores.is_store_error(error):  # from deep within a library: the client's own words
                _fail(f"{object_stores.explain(str(error))}; run the same command again to go on")
            if error.errno != errno.ENOSPC:
                raise
            _fail(f"the disk is full ({error.filename or 'while writing'}): free some space and run it again")
        except KeyboardInterrupt as stopped:
            say(f"stopped: nothing half-written was left; {str(stopped) or 'run the same command again to go on'}")
            sys.exit(130)
        print(json.dumps(result), file=result_stream, flush=True)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    say(f"error: {message}")
    sys.exit(1)


def end(message: str) -> NoReturn:
    """Ends the process with an error, from any thread, without waiting for anything."""
    say(f"error: {message}")
    _hush()
    os._exit(1)


@contextlib.contextmanager
def _spoken_for() -> Iterator[None]:
    """Should this process die within the block, however it may be, another says so on stderr."""
    global _speaker
    words = ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', DIED]
    _speaker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        _hush()


def _hush() -> None:
    """What there is to say is said."""
    global _speaker
    speaker, _speaker = _speaker, None
    if speaker is not None:
        speaker.communicate(b"\n")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _stdout_kept_clean() -> Iterator[Any]:
    """Sends everything that libraries print to stdout to stderr; yields the real stdout for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "w") as stream:
        try:
            yield stream
        finally:
            stream.flush()
            sys.stdout.flush()
            os.dup2(kept, 1)
