"""Targets: ratios with an aim, each computed from the JSON line of its benchmark."""

import math
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


def _times(one: float, other: float) -> float:
    """How many times the other one is; a peer that answered nothing, on a machine busy with other work, counts as 0."""
    return one / other if other else math.inf


def _served(values: Values, row: str, connections: str) -> Values:
    row_values: Values = values["rows"][row][connections]
    return row_values


SERVING = "serving at 32 connections, compared with "
TARGETS = (
    Target(
        benchmark="train",
        what="training without Ray, compared with a plain PyTorch loop, images/s",
        ratio=_speed_ratio("fit()", "plain loop"),
        least=1.3,
    ),
    Target(
        benchmark="train",
        what="training without Ray, compared with a loop of timm's parts, images/s",
        ratio=_speed_ratio("fit()", "timm loop"),
        least=0.97,
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
    Target(
        benchmark="serve",
        what=f"{SERVING}the bare runtime in process, images/s",
        ratio=lambda values: _served(values, "ours", "32")["images_per_s"] / values["bare"]["images_per_s"],
        least=0.75,
    ),
    Target(
        benchmark="serve",
        what=f"{SERVING}LitServe, images/s",
        ratio=lambda values: _times(
            _served(values, "ours", "32")["images_per_s"], _served(values, "LitServe", "32")["images_per_s"]
        ),
        least=4.5,
    ),
    Target(
        benchmark="serve",
        what="serving at 32 connections, CPU milliseconds of all its processes for an image",
        ratio=lambda values: _served(values, "ours", "32")["server_ms"],
        most=16.5,
        unit="ms",
    ),
    Target(
        benchmark="serve",
        what="serving at one connection, p50 compared with the bare pass",
        ratio=lambda values: _served(values, "ours", "1")["p50"] / values["bare"]["ms"],
        most=2,
    ),
    Target(
        benchmark="serve",
        what="serving at one connection, p99 compared with the bare pass",
        ratio=lambda values: _served(values, "ours", "1")["p99"] / values["bare"]["ms"],
        most=3,
    ),
)
