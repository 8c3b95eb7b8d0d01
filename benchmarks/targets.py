"""The ratios that were aimed at, each read from the JSON line of its benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A ratio beside its aim."""

    what: str
    aim: str
    shown: str
    reached: bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """``ratio`` reads what was found; it should be at least ``least``, or at most ``most``."""

    benchmark: str
    what: str
    ratio: Callable[[Values], float]
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    def read(self, values: Values) -> Found:
        """What was found."""
        found = self.ratio(values)
        low, high = self.least, self.most
        aim = f"at least {low:g} {self.unit}" if low is not None else f"at most {high:g} {self.unit}"
        reached = found >= low if low is not None else high is not None and found <= high
        return Found(what=self.what, aim=aim, shown=f"{found:.2f} {self.unit}", reached=reached)


def _rates(one: str, other: str) -> Callable[[Values], float]:
    return lambda values: values["images_per_s"][one] / values["images_per_s"][other]


def _served(row: str) -> tuple[Target, ...]:
    return (
        Target(
            benchmark="serve",
            what=f"serving ({row}) at 32 connections beside LitServe, images/s",
            ratio=lambda values: values["rows"][row]["32"]["rate"] / values["rows"]["LitServe"]["32"]["rate"],
            least=4,
        ),
        Target(
            benchmark="serve",
            what=f"serving ({row}) at 32 connections beside the bare runtime in process, images/s",
            ratio=lambda values: values["rows"][row]["32"]["rate"] / values["bare"]["images_per_s"],
            least=0.85,
        ),
        Target(
            benchmark="serve",
            what=f"serving ({row}), p99 at one connection beside the bare latency",
            ratio=lambda values: values["rows"][row]["1"]["p99"] / values["bare"]["ms"],
            most=2,
        ),
    )


TARGETS = (
    Target(
        benchmark="train",
        what="training without Ray beside a plain PyTorch loop, images/s",
        ratio=_rates("fit()", "plain loop"),
        least=2,
    ),
    Target(
        benchmark="train",
        what="a job with one worker beside the same without Ray, images/s",
        ratio=_rates("job, 1 worker", "fit()"),
        least=0.97,
    ),
    Target(
        benchmark="evaluate",
        what="scoring beside the bare forward passes, seconds",
        ratio=lambda values: values["seconds"]["scoring"] / values["seconds"]["bare forward passes"],
        most=1.1,
    ),
    *(target for layout in ("ours", "together") for target in _served(layout)),
)
