"""A budget of CPU time that everything which works for one request shares."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class OverBudget(Exception):
    """The CPU time is used up."""


@dataclass
class Grant:
    """CPU time that one task may use, in seconds; ``used`` is all of it unless the task says otherwise."""

    seconds: float
    used: float


class CpuBudget:
    """Seconds of CPU time, for several threads.

    Attributes:
        seconds: the whole budget.
        used: what has been used of it; may exceed it by what :meth:`charge` was told afterward.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds, self.used = seconds, 0.0
        self._granted, self._tasks = 0.0, 0
        self._changed = threading.Condition()

    @contextmanager
    def grant(self, seconds: float) -> Iterator[Grant]:
        """Sets aside CPU time for a task and takes back what it has not used.

        If less is left, waits for other tasks to return theirs, so that together they never exceed the budget; a task
        gets less than it wants only when nothing else is left. Raises OverBudget if nothing is left at all.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._left >= seconds or not self._tasks)
            granted = min(seconds, self._left)
            if granted <= 0:
                raise OverBudget
            self._granted, self._tasks = self._granted + granted, self._tasks + 1
        grant = Grant(seconds=granted, used=granted)
        try:
            yield grant
        finally:
            with self._changed:
                self._granted, self._tasks = self._granted - granted, self._tasks - 1
                self.used += grant.used
                self._changed.notify_all()

    def charge(self, seconds: float) -> None:
        """Counts CPU time that has been used without a grant. Raises OverBudget if that exceeds the budget."""
        with self._changed:
            self.used += seconds
        if self.used > self.seconds:
            raise OverBudget

    @property
    def _left(self) -> float:
        return self.seconds - self.used - self._granted
