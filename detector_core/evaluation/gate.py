"""The gate of a new version: no worse than the live one on the frozen test split, better on held-out tags.

A canary set, if there is one, must keep every verdict.

Both models predict the same images, so they are compared image by image (McNemar's exact test, one-sided), for each of
the two errors separately: a model that catches a new generator by flagging real photographs must not pass.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector_core.evaluation.intervals import Flags
from detector_core.evaluation.metrics import ERROR_RATES, short_label
from detector_core.evaluation.significance import SIGNIFICANCE, mcnemar
from detector_core.labels import FAKE, REAL

MAX_WORSE: Final = 0.02
"""Largest rise of an error rate on the test split, as a fraction of all fakes or reals, even if it may be chance."""
MAX_WORSE_SOURCE: Final = 0.05
"""The same for a single source, which has fewer images."""

SHOWN: Final = 5
"""Largest number of changed verdicts that a condition names."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What two models say about the same N images.

    Attributes:
        is_fake_N: the truth.
        live_N, new_N: whether the live and the new model call an image fake.
        source_N: where each image comes from; None for no sources.
    """

    is_fake_N: Flags
    live_N: Flags
    new_N: Flags
    source_N: NDArray[np.str_] | None = None

    def of(self, rows_N: Flags) -> "Paired":
        """Some of the images."""
        return Paired(is_fake_N=self.is_fake_N[rows_N], live_N=self.live_N[rows_N], new_N=self.new_N[rows_N])


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of the gate.

    Attributes:
        name: what was compared, and on what.
        passed: whether it holds.
        live, new: errors of the two models, as counts.
        images: number of images that could be wrong.
        p_value: probability of so many more errors by chance; None where chance is no excuse.
        limit: what was allowed, in words.
    """

    name: str
    passed: bool
    live: int
    new: int
    images: int
    p_value: float | None
    limit: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)

    def __str__(self) -> str:
        change = f"{self.live} -> {self.new} of {self.images}"
        chance = "" if self.p_value is None else f"p = {self.p_value:.3f}; "
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {change} ({chance}{self.limit})"


def check(test: Paired, held_out: Paired) -> list[Condition]:
    """The conditions of the gate, all of which must pass.

    Args:
        test: the frozen test split, with sources if the data set has some.
        held_out: reviewed tags that the new model did not learn from.
    """
    conditions = [_no_worse(test, label, "on the test split", MAX_WORSE) for label in (FAKE, REAL)]
    sources: Sequence[str] = [] if test.source_N is None else sorted(set(test.source_N.tolist()))
    if test.source_N is not None and len(sources) > 1:
        for source in sources:
            rows = test.of(test.source_N == source)
            for label in (FAKE, REAL):
                if ((rows.is_fake_N) == (label == FAKE)).any():
                    conditions.append(_no_worse(rows, label, f"on {source}", MAX_WORSE_SOURCE))
    return [*conditions, _better(held_out)]


def unchanged(names: Sequence[str], live_N: NDArray[np.str_], new_N: NDArray[np.str_]) -> Condition:
    """The condition that no verdict on a canary set changes.

    Args:
        names: of its files.
        live_N, new_N: the verdicts of the live and of the new model.
    """
    changed = [
        f"{name} was {before}, would be {after}"
        for name, before, after in zip(names, live_N.tolist(), new_N.tolist(), strict=True)
        if before != after
    ]
    shown = "; ".join(changed[:SHOWN])
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return Condition(
        name="verdicts changed on the canary set",
        passed=not changed,
        live=0,
        new=len(changed),
        images=len(names),
        p_value=None,
        limit=f"none may change{f': {shown}{more}' if changed else ''}",
    )


def _no_worse(paired: Paired, label: str, where: str, max_worse: float) -> Condition:
    rows = paired.of(paired.is_fake_N == (label == FAKE))
    live, new, p_value = _compare(rows)
    allowed = max_worse * len(rows.is_fake_N)
    return Condition(
        name=f"{short_label(ERROR_RATES[0] if label == FAKE else ERROR_RATES[1])} {where}",
        passed=new <= live or (p_value > SIGNIFICANCE and new - live <= allowed),
        live=live,
        new=new,
        images=len(rows.is_fake_N),
        p_value=p_value,
        limit=f"at most {int(allowed)} more, and not significantly more",
    )


def _better(held_out: Paired) -> Condition:
    live, new, p_value = _compare(held_out)
    return Condition(
        name="errors on held-out tags",
        passed=new < live,
        live=live,
        new=new,
        images=len(held_out.is_fake_N),
        p_value=p_value,
        limit="fewer than before",
    )


def _compare(paired: Paired) -> tuple[int, int, float]:
    """Errors of both models, and the one-sided p-value of the new one being worse."""
    live_N, new_N = paired.live_N == paired.is_fake_N, paired.new_N == paired.is_fake_N
    p_value: float = mcnemar(live_N, new_N, alternative="greater")["p_value"]
    return int((~live_N).sum()), int((~new_N).sum()), p_value
