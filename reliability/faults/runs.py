"""Faults of a training run: it is started, something is done to it, it ends or goes on, and its curve is looked at."""

import contextlib
import io
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from detector_core import storage
from reliability.faults.table import Broken, Scene, ensure, last_line, steps_of, went_on
from tests.support.training import EPOCHS, STEPS, children, finish, start

NEAR = 0.05
"""The losses of a run that was broken off are within this of the unbroken one's."""
EVERY = 5
"""Steps between checkpoints."""


@dataclass
class Run:
    """A training that something happens to."""

    corner: Path
    dataset: Path
    where: str
    flags: tuple[str, ...]
    process: "subprocess.Popen[str]"
    below: dict[int, str] = field(default_factory=dict)
    told: str = ""

    @property
    def folder(self) -> str:
        return storage.join(self.where, "run")

    def kill(self, words: str, which: int = -1) -> None:
        """SIGKILL to a process below the driver whose command line has these words."""
        found = [pid for pid, line in children(self.process.pid).items() if re.search(words, line)]
        ensure(found, f"no process like {words}")
        os.kill(found[which], signal.SIGKILL)

    def die(self) -> None:
        """SIGKILL to the driver."""
        self.below = children(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)

    def newest(self) -> Path:
        """The newest checkpoint on disk."""
        return max(Path(self.folder).glob("checkpoint_2*"))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run keeps its files, and with which environment."""

    where: str
    env: dict[str, str]


Around = Callable[[Path], AbstractContextManager[Place]]


def on_disk(corner: Path) -> AbstractContextManager[Place]:
    """A folder."""
    return nullcontext(Place(where=str(corner / "runs"), env=dict(os.environ)))


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happens to a run.

    Attributes:
        happens: is done when two epochs are finished.
        says: what the last line on stderr must say; None where the run must go on by itself.
        may_go_on: it may do that too.
        mend: is done before ``--resume``.
        resumes: what that must say.
        within_s: how soon a run that ends must end.
    """

    happens: Callable[[Run], object]
    says: str | None = None
    may_go_on: bool = False
    code: int = 1
    mend: Callable[[Run], object] = lambda _: None
    resumes: str = ""
    around: Around = on_disk
    flags: tuple[str, ...] = ()
    within_s: float = 180
    after: Callable[[Run], str] = lambda _: ""

    def __call__(self, scene: Scene) -> str:
        corner = scene.corner()
        dataset, whole = scene.dataset(corner), scene.whole
        flags = ("--checkpoint-every", str(EVERY), *self.flags)
        with self.around(corner) as place:

            def begin(*more: str) -> "subprocess.Popen[str]":
                return start(scene.spec, dataset, place.where, "run", *flags, *more, env=place.env)

            first = begin()
            run = Run(corner, dataset, place.where, flags, first)
            try:
                until_epochs(run, 2)
                self.happens(run)
                happened = time.monotonic()
                try:
                    code, out, err = finish(run.process, self.within_s + 120)
                except subprocess.TimeoutExpired:
                    raise Broken(f"it had not ended {self.within_s + 120:.0f} s later") from None
                took = time.monotonic() - happened
                if self.says is not None and not (self.may_go_on and code == 0):
                    said = last_line(err)
                    ensure(code == self.code, f"exit code {code}, {self.code} was expected: {said}")
                    ensure(re.search(self.says, said), f"it said {said!r}, not {self.says!r}: {err[-2000:]}")
                    ensure("Traceback" not in err, f"a traceback: {err[-2000:]}")
                    ensure(took < self.within_s, f"it took {took:.0f} s to end")
                    self.mend(run)
                    run.process = begin("--resume")
                    code, out, err = finish(run.process)
                    ensure(self.resumes in err, f"--resume did not say {self.resumes!r}: {err[-1000:]}")
                ensure(code == 0, f"exit code {code}: {err[-3000:]}")
                losses = losses_of(run.folder)
                ensure(len(losses) == EPOCHS, f"{len(losses)} epochs of {EPOCHS}")
                ensure(steps_of(out) == EPOCHS * STEPS, f"{steps_of(out)} steps of {EPOCHS * STEPS}")
                apart = max(abs(ours / theirs - 1) for ours, theirs in zip(losses, whole, strict=True))
                ensure(apart < NEAR, f"the curve is {apart:.1%} from the unbroken one")
                ended = f"ended after {took:.1f} s; " if self.says and run.process is not first else ""
                begun = f"went on from {went_on(err)}; " if "from epoch" in err else ""
                return f"{ended}{begun}no epoch, curve within {apart:.1%}{self.after(run)}"
            finally:
                _end(run)


def _end(run: Run) -> None:
    """Ends what is left; a process that was noted earlier only if it is still that one, for numbers are used again."""
    below = dict(run.below)
    if run.process.poll() is None:
        below |= children(run.process.pid)
        run.process.kill()
        run.process.communicate()
    for pid, line in below.items():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") == line:
                os.kill(pid, signal.SIGKILL)


def losses_of(folder: str) -> list[float]:
    """The validation losses of the epochs that a run has finished."""
    where = storage.join(folder, "metrics.csv")
    if not storage.exists(where):
        return []
    losses: list[float] = pd.read_csv(io.BytesIO(storage.read_bytes(where)))["val_loss"].tolist()
    return losses


def until_epochs(run: Run, count: int) -> None:
    """Until it has finished so many."""
    deadline = time.monotonic() + 300
    while len(losses_of(run.folder)) < count:
        if run.process.poll() is not None:
            raise Broken(f"it ended after {len(losses_of(run.folder))} epochs: {run.process.communicate()[1][-2000:]}")
        ensure(time.monotonic() < deadline, f"no {count} epochs within 300 s")
        time.sleep(0.05)
