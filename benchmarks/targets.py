"""Targets: ratios with an aim, each computed from the JSON line of its benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A measured ratio, compared with its aim."""

    what: str
    aim: str
    shown: str
    reached: bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """``ratio`` of a benchmark's values should be at least ``least``, or at most ``most``."""

    benchmark: str
    what: str
    ratio: Callable[[Values], float]
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    def read(self, values: Values) -> Outcome:
        """Compares the measured ratio with the aim."""
        ratio = self.ratio(values)
        low, high = self.least, self.most
        aim = f"at least {low:g} {self.unit}" if low is not None else f"at most {high:g} {self.unit}"
        reached = ratio >= low if low is not None else high is not None and ratio <= high
        return Outcome(what=self.what, aim=aim, shown=f"{ratio:.2f} {self.unit}", reached=reached)


def _speed_ratio(one: str, other: str) -> Callable[[Values], float]:
    return lambda values: values["images_per_s"][one] / values["images_per_s"][other]


def _served_at(values: Values, row: str, connections: str) -> float:
    images_per_s: float = values["rows"][row][connections]["images_per_s"]
    return images_per_s


def _served(row: str) -> tuple[Target, ...]:
    return (
        Target(
            benchmark="serve",
            what=f"serving ({row}) at 32 connections, compared with LitServe, images/s",
            ratio=lambda values: _served_at(values, row, "32") / _served_at(values, "LitServe", "32"),
            least=4,
        ),
        Target(
            benchmark="serve",
            what=f"serving ({row}) at 32 connections, compared with the bare runtime in process, images/s",
            ratio=lambda values: _served_at(values, row, "32") / values["bare"]["images_per_s"],
            least=0.85,
        ),
        Target(
            benchmark="serve",
            what=f"serving ({row}), p99 at one connection, compared with the bare latency",
            ratio=lambda values: values["rows"][row]["1"]["p99"] / values["bare"]["ms"],
            most=2,
        ),
    )


TARGETS = (
    Target(
        benchmark="train",
        what="training without Ray, compared with a plain PyTorch loop, images/s",
        ratio=_speed_ratio("fit()", "plain loop"),
        least=2,
    ),
    Target(
        benchmark="train",
        what="a job with one worker, compared with the same without Ray, images/s",
        ratio=_speed_ratio("job, 1 worker", "fit()"),
        least=0.97,
    ),
    Target(
        benchmark="evaluate",
        what="scoring, compared with the bare forward passes, seconds",
        ratio=lambda values: values["seconds"]["scoring"] / values["seconds"]["bare forward passes"],
        most=1.1,
    ),
    *(target for layout in ("ours", "together") for target in _served(layout)),
)
