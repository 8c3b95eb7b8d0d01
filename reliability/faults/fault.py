"""What a fault is, what its outcome was, and the workspace in which it is caused."""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detector_core.registry import versions
from tests.conftest import make_dataset
from tests.support.models import save_model
from tests.support.training import long_spec, undisturbed_losses


class PromiseBroken(Exception):
    """A promise did not hold; the message says what happened instead."""


class CannotCause(Exception):
    """This machine cannot cause the fault; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the table.

    Attributes:
        name: what happens.
        promise: what the product guarantees in that case.
        cause: how the fault is caused.
        checks: what is checked afterward.
        run: causes the fault and returns what was lost, with numbers. Raises PromiseBroken, CannotCause.
        tested_by: the test of the suite that causes the same fault, if there is one; the suite does not repeat it.
    """

    name: str
    promise: str
    cause: str
    checks: str
    run: Callable[["Workspace"], str]
    tested_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one fault.

    Attributes:
        held: whether the promise held: yes, NO, skipped (this machine cannot cause the fault) or not run.
        lost: what was lost; what went wrong; or why it was skipped.
        seconds: how long it took, starts of the product included.
    """

    fault: Fault
    held: str
    lost: str
    seconds: float


def cause(fault: Fault, workspace: "Workspace") -> Outcome:
    """Causes a fault and returns its outcome."""
    started = time.monotonic()
    try:
        held, lost = "yes", fault.run(workspace)
    except CannotCause as reason:
        held, lost = "skipped", str(reason)
    except (PromiseBroken, AssertionError) as error:
        held, lost = "NO", str(error)
    return Outcome(fault=fault, held=held, lost=lost, seconds=time.monotonic() - started)


@dataclass
class Workspace:
    """A folder in which each fault gets a subfolder, and what all faults share; the latter is made on first use."""

    folder: Path

    def new_folder(self) -> Path:
        """A new, empty subfolder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def dataset(self, folder: Path) -> Path:
        """A new copy of the same prepared data set of 80 images, which a fault may damage."""
        return make_dataset(folder / "data", {"train": 24, "valid": 8, "test": 8})

    @cached_property
    def spec(self) -> Path:
        """The spec file of a run of ten epochs of twelve steps."""
        return long_spec(self.folder)

    @cached_property
    def baseline_losses(self) -> list[float]:
        """The validation loss of each epoch of that run when nothing disturbs it."""
        return undisturbed_losses(self.spec, self.dataset(self.new_folder()))

    @cached_property
    def models(self) -> Path:
        """A registry with one promoted model."""
        folder = self.new_folder()
        versions.promote(save_model(folder / "model"), folder / "models")
        return folder / "models"


def ensure(condition: object, otherwise: str) -> None:
    """Raises PromiseBroken with the message ``otherwise`` unless the condition is true."""
    if not condition:
        raise PromiseBroken(otherwise)


def require_root(purpose: str) -> None:
    """Raises CannotCause unless this process runs as root."""
    if os.geteuid() != 0:
        raise CannotCause(f"{purpose} needs root")


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def steps_of(stdout: str) -> int:
    """The number of steps in the result that a finished training printed."""
    steps: int = json.loads(stdout.splitlines()[-1])["steps"]
    return steps


def describe_resumption(stderr: str, epochs: int) -> str:
    """Where the last group of workers resumed, as part of a sentence; a run that never stopped has one group.

    Args:
        epochs: number of epochs of the run.
    """
    starts = [(int(epoch), int(step)) for epoch, step in re.findall(r"from epoch (\d+), step (\d+)", stderr)]
    if not starts or starts[-1] == (1, 1):
        return "was not interrupted"
    epoch, step = starts[-1]
    return "had finished all epochs" if epoch > epochs else f"resumed at epoch {epoch}, step {step}"
