"""What a fault is, what it left behind, and where one takes place."""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from detector_core.registry import versions
from tests.conftest import make_dataset
from tests.support.models import save_model
from tests.support.training import long_spec, train, val_losses


class Broken(Exception):
    """A promise did not hold: what was seen instead."""


class Skipped(Exception):
    """The fault cannot be made here: why."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the table.

    Attributes:
        name: what happens.
        promise: what the product says it does then.
        made: how it is made to happen.
        checked: what is looked at.
        run: does it and returns what was lost, with figures. Raises Broken, Skipped.
        elsewhere: the test of the suite that does the same, if there is one; the suite does not do it twice.
        quick: short enough for every run of the suite.
    """

    name: str
    promise: str
    made: str
    checked: str
    run: Callable[["Scene"], str]
    elsewhere: str = ""
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a fault: ``held`` is yes, NO, left out or not made; ``lost`` what was lost, or went wrong."""

    fault: Fault
    held: str
    lost: str
    seconds: float


def make(fault: Fault, scene: "Scene") -> Outcome:
    """Makes one happen."""
    started = time.monotonic()
    try:
        held, lost = "yes", fault.run(scene)
    except Skipped as reason:
        held, lost = "left out", str(reason)
    except (Broken, AssertionError) as error:
        held, lost = "NO", str(error)
    return Outcome(fault=fault, held=held, lost=lost, seconds=time.monotonic() - started)


@dataclass
class Scene:
    """A folder for faults, what they share, and a fresh corner for each."""

    folder: Path
    corners: list[Path] = field(default_factory=list)

    def corner(self) -> Path:
        """A new folder."""
        self.corners.append(Path(tempfile.mkdtemp(prefix=f"{len(self.corners)}-", dir=self.folder)))
        return self.corners[-1]

    def dataset(self, corner: Path) -> Path:
        """A prepared data set of 80 images that a fault may break; the same each time."""
        return make_dataset(corner / "data", {"train": 24, "valid": 8, "test": 8})

    @cached_property
    def spec(self) -> Path:
        """Of a run of ten epochs of twelve steps."""
        return long_spec(self.folder)

    @cached_property
    def whole(self) -> list[float]:
        """The validation losses of that run where nothing happens."""
        corner = self.corner()
        train(self.spec, self.dataset(corner), corner, "whole")
        return val_losses(corner / "whole")

    @cached_property
    def models(self) -> Path:
        """A promoted model."""
        corner = self.corner()
        versions.promote(save_model(corner / "model"), corner / "models")
        return corner / "models"


def ensure(holds: object, otherwise: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(otherwise)


def root_only(what: str) -> None:
    """Raises Skipped."""
    if os.geteuid() != 0:
        raise Skipped(f"{what} needs root")


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def steps_of(out: str) -> int:
    """The steps that a finished job counts."""
    steps: int = json.loads(out.splitlines()[-1])["steps"]
    return steps


def went_on(err: str) -> str:
    """Where the last group of workers began."""
    found = re.findall(r"from (epoch \d+, step \d+)", err)
    return found[-1] if found else "nowhere"
