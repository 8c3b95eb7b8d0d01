"""A training run is started, a fault is caused, the run ends or goes on, and its result is checked."""

import io
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from detector_core import storage
from reliability.faults.fault import PromiseBroken, Workspace, describe_resumption, ensure, last_line, steps_of
from tests.support.processes import children, kill
from tests.support.progress import Process, Stuck
from tests.support.training import EPOCHS, STEPS, start

MAX_DIFFERENCE = 0.05
"""The losses of an interrupted run may differ from the baseline's by this fraction."""
CHECKPOINT_EVERY = 5
TWO_EPOCHS_S = 300


@dataclass
class Run:
    """A training run to which something happens.

    Attributes:
        folder: of this fault, for files of its own.
        storage: where the run keeps its files: a folder or a URI.
        descendants: command lines by process id, noted before the driver was killed.
        damaged: the file that was damaged, to repair it later.
    """

    folder: Path
    dataset: Path
    storage: str
    process: Process
    descendants: dict[int, str] = field(default_factory=dict)
    damaged: Path | None = None

    @property
    def run_folder(self) -> str:
        """The folder or URI of the run below ``storage``."""
        return storage.join(self.storage, "run")

    def kill(self, pattern: str) -> None:
        """Sends SIGKILL to the newest descendant of the driver whose command line matches."""
        pids = [pid for pid, line in children(self.process.pid).items() if re.search(pattern, line)]
        ensure(pids, f"no process matches {pattern}")
        os.kill(pids[-1], signal.SIGKILL)

    def kill_driver(self) -> None:
        """Notes the descendants of the driver, then sends it SIGKILL."""
        self.descendants = children(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)

    def newest_checkpoint(self) -> Path:
        """The folder of the newest checkpoint on disk."""
        return max(Path(self.run_folder).glob("checkpoint_2*"))


@dataclass(frozen=True, kw_only=True)
class RunEnvironment:
    """Where a run keeps its files, and the environment variables it is started with."""

    storage: str
    env: dict[str, str]


EnvironmentFactory = Callable[[Path], AbstractContextManager[RunEnvironment]]


def on_disk(folder: Path) -> AbstractContextManager[RunEnvironment]:
    """An ordinary folder and this process's environment."""
    return nullcontext(RunEnvironment(storage=str(folder / "runs"), env=dict(os.environ)))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What happens to a run, and what must come of it. Call it with a workspace.

    Attributes:
        fault: is called when two epochs have finished.
        error: pattern of the last line on stderr of a run that must end. None if the run must go on by itself.
        may_finish: a run with an ``error`` may also finish in spite of the fault.
        exit_code: of a run that ends with ``error``.
        repair: is called before ``--resume``.
        resume_message: what ``--resume`` must write on stderr.
        environment: where the run keeps its files, and its environment variables.
        flags: more flags of jobs.train.
        ends_within_s: how soon after the fault a run must end.
        final_check: is called at the end; returns words to add to the outcome.
    """

    fault: Callable[[Run], object]
    error: str | None = None
    may_finish: bool = False
    exit_code: int = 1
    repair: Callable[[Run], object] = lambda _: None
    resume_message: str = ""
    environment: EnvironmentFactory = on_disk
    flags: tuple[str, ...] = ()
    ends_within_s: float = 180
    final_check: Callable[[Run], str] = lambda _: ""

    def __call__(self, workspace: Workspace) -> str:
        """Plays the scenario and returns what was lost. Raises PromiseBroken."""
        folder = workspace.new_folder()
        dataset, baseline = workspace.dataset(folder), workspace.baseline_losses
        flags = ("--checkpoint-every", str(CHECKPOINT_EVERY), *self.flags)
        with self.environment(folder) as place:

            def begin(*more: str) -> Process:
                return start(workspace.spec, dataset, place.storage, "run", *flags, *more, env=place.env)

            run = Run(folder, dataset, place.storage, begin())
            try:
                ended = ""
                wait_for_epochs(run, 2)
                self.fault(run)
                code, out, err, took_s = self._end_of(run)
                if self.error is not None and not (self.may_finish and code == 0):
                    self._check_error(code, err, took_s)
                    ended = f"the job ended {took_s:.1f} s after the fault; " if self.error else ""
                    self.repair(run)
                    run.process = begin("--resume")
                    code, out, err = run.process.finish()
                    ensure(self.resume_message in err, f"--resume did not say {self.resume_message!r}: {err[-1000:]}")
                ensure(code == 0, f"exit code {code}: {err[-3000:]}")
                difference = _check_result(run, out, baseline)
                resumed = describe_resumption(err, EPOCHS)
                kept = f"no epoch lost; validation losses differ by {difference:.1%}"
                return f"{kept}; {ended}{resumed}{self.final_check(run)}"
            finally:
                _kill_remaining(run)

    def _end_of(self, run: Run) -> tuple[int, str, str, float]:
        """Exit code, stdout and stderr of the run, and the seconds until it ended."""
        started = time.monotonic()
        try:
            code, out, err = run.process.finish()
        except Stuck as error:
            raise PromiseBroken(f"the run did not end: {error}") from None
        return code, out, err, time.monotonic() - started

    def _check_error(self, code: int, err: str, took_s: float) -> None:
        assert self.error is not None
        message = last_line(err)
        ensure(code == self.exit_code, f"exit code {code}, expected {self.exit_code}: {message}")
        ensure(re.search(self.error, message), f"the last line is {message!r}, expected {self.error!r}: {err[-2000:]}")
        ensure("Traceback" not in err, f"a traceback: {err[-2000:]}")
        ensure(took_s < self.ends_within_s, f"it took {took_s:.0f} s to end")


def _check_result(run: Run, out: str, baseline: list[float]) -> float:
    """Checks epochs, steps and losses of a finished run; the largest difference from the baseline, as a fraction."""
    losses = losses_of(run.run_folder)
    ensure(len(losses) == EPOCHS, f"{len(losses)} epochs, expected {EPOCHS}")
    ensure(steps_of(out) == EPOCHS * STEPS, f"{steps_of(out)} steps, expected {EPOCHS * STEPS}")
    difference = max(abs(loss / expected - 1) for loss, expected in zip(losses, baseline, strict=True))
    ensure(difference < MAX_DIFFERENCE, f"the losses differ from the baseline by {difference:.1%}")
    return difference


def _kill_remaining(run: Run) -> None:
    """Kills what is left of the run, also after its driver was killed."""
    processes = dict(run.descendants)
    if run.process.poll() is None:
        processes |= children(run.process.pid)
        run.process.kill()
    kill(processes)
    run.process.finish()


def losses_of(run_folder: str) -> list[float]:
    """The validation loss of each epoch that a run has finished."""
    metrics = storage.join(run_folder, "metrics.csv")
    if not storage.exists(metrics):
        return []
    losses: list[float] = pd.read_csv(io.BytesIO(storage.read_bytes(metrics)))["val_loss"].tolist()
    return losses


def wait_for_epochs(run: Run, count: int) -> None:
    """Waits until a run has finished ``count`` epochs. Raises PromiseBroken if it ends or takes too long."""
    deadline = time.monotonic() + TWO_EPOCHS_S
    while (finished := len(losses_of(run.run_folder))) < count:
        if run.process.poll() is not None:
            raise PromiseBroken(f"the run ended after {finished} epochs: {run.process.finish()[2][-2000:]}")
        ensure(time.monotonic() < deadline, f"{finished} epochs within {TWO_EPOCHS_S} s, expected {count}")
        time.sleep(0.05)
