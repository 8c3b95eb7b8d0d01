"""What the command lines of all jobs share: help texts, one-line errors, and the result as the last line.

Progress and messages go to stderr; stdout carries one JSON object. A job exits with 0 only on success, with 1 on an
error that it names, with 3 if it has a result that is no success, and with 130 if it was interrupted. A job that is
killed, or ended by a library, can no longer print anything, so a small helper process reports it.
"""

import argparse
import contextlib
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
from detector_core.storage import object_stores, os_errors

Result = dict[str, Any]
Job = Callable[[argparse.Namespace], Result | Iterator[Result]]
RESUME_HINT = "restart Ray if necessary, then run the same command again, with --resume if the job has that flag"
DIED = f"error: the job died: it was killed, possibly because memory ran out, or Ray ended it; {RESUME_HINT}"
WAIT_MESSAGE_EVERY_S = 15.0
NEGATIVE = 3
_death_reporter: "subprocess.Popen[bytes] | None" = None


class NegativeResult(Exception):
    """A job that did its work, with a result that must not pass for success: it is printed, and the exit code is 3."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


def parser(verb: str, module_doc: str) -> argparse.ArgumentParser:
    """An argument parser whose description is the docstring of the job's module."""
    return argparse.ArgumentParser(
        prog=f"python -m jobs.{verb}", description=module_doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def say(message: str) -> None:
    """Prints a message for people to stderr."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """While the ``with`` block runs, prints every WAIT_MESSAGE_EVERY_S seconds what the job is waiting for."""
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
    """Runs a job, prints its result on stdout as the last line, or each of several as it comes, and exits."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, previous)
        stack.enter_context(_reporting_sudden_death())
        result_stream = stack.enter_context(_stdout_for_result())
        try:
            with _named_errors():
                result, code = _result(job, arguments)
                for line in [result] if isinstance(result, dict) else result:
                    result_stream.write(json.dumps(line).encode() + b"\n")
        except KeyboardInterrupt as interrupt:
            say(f"stopped; {str(interrupt) or 'run the same command again to continue'}")
            sys.exit(130)
    sys.exit(code)


def _result(job: Job, arguments: argparse.Namespace) -> tuple[Result | Iterator[Result], int]:
    try:
        return job(arguments), 0
    except NegativeResult as negative:
        return negative.result, NEGATIVE


def run_server(serve: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> NoReturn:
    """Runs a server until Ctrl-C or SIGTERM, then exits with 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_server)
    try:
        with _named_errors():
            serve(arguments)
    except KeyboardInterrupt:
        say("stopped")
    sys.exit(0)


def _stop_server(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # stopping takes seconds and must not be interrupted
    raise KeyboardInterrupt


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turns the errors that a user can cause into one line on stderr and exit code 1: ours, and all of the system's."""
    try:
        yield
    except DetectorError as error:
        _fail(str(error))
    except OSError as error:
        if object_stores.is_store_error(error):  # raised within a library, in the words of the store's client
            _fail(f"{object_stores.explain(str(error))}; run the same command again to continue")
        _fail(os_errors.explain(error))


def _fail(message: str) -> NoReturn:
    say(f"error: {message}")
    sys.exit(1)


def exit_now(message: str) -> NoReturn:
    """Ends the process with an error at once, from any thread, without cleaning up."""
    say(f"error: {message}")
    _dismiss_death_reporter()
    os._exit(1)


@contextlib.contextmanager
def _reporting_sudden_death() -> Iterator[None]:
    """If this process dies within the ``with`` block, for whatever reason, another process prints DIED to stderr."""
    global _death_reporter
    command = ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', DIED]
    _death_reporter = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        _dismiss_death_reporter()


def _dismiss_death_reporter() -> None:
    """Ends the other process without a message, because this one has reported its end itself."""
    global _death_reporter
    process, _death_reporter = _death_reporter, None
    if process is not None:
        process.communicate(b"\n")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _stdout_for_result() -> Iterator[Any]:
    """Sends to stderr what libraries print to stdout; yields the real stdout as unbuffered bytes, for the result."""
    sys.stdout.flush()
    real_stdout = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(real_stdout, "wb", buffering=0) as stream:
        try:
            yield stream
        finally:
            sys.stdout.flush()
            os.dup2(real_stdout, 1)
