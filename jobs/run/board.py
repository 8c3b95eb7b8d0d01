"""The board of a training: an actor on which the workers post messages and the driver reads them.

Ray Train accepts reports only together with checkpoints and polls for them; a board accepts any message at once. Its
process imports this module, and therefore nothing heavier than Ray.
"""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Message = dict[str, Any]


@ray.remote(num_cpus=0)
class ProgressBoard:
    """Unread messages, the reasons of failed runs, and what each run holds of the cluster."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failures: dict[str, str] = {}
        self.placement_groups: dict[str, list[Any]] = {}
        self.reservations: dict[str, list[str]] = {}
        self.stopping = False
        self.stopped: set[str] = set()

    def stop(self) -> None:
        """Asks every run to finish its current step, write a checkpoint and stop."""
        self.stopping = True

    def is_stopping(self) -> bool:
        """Whether the runs have been asked to stop."""
        return self.stopping

    def mark_stopped(self, run: str) -> None:
        """Records that a run has stopped because it was asked to."""
        self.stopped.add(run)

    def has_stopped(self, run: str) -> bool:
        """Whether a run has stopped because it was asked to."""
        return run in self.stopped

    def post(self, message: Message) -> None:
        """Adds a message."""
        self.messages.append(message)

    def take(self) -> list[Message]:
        """Returns the unread messages and forgets them."""
        unread, self.messages = self.messages, []
        return unread

    def report_failure(self, run: str, reason: str) -> None:
        """Records why a run cannot succeed, whatever is retried; the first reason counts."""
        self.failures.setdefault(run, reason)

    def failure(self, run: str) -> str | None:
        """The reason of a failed run."""
        return self.failures.get(run)

    def add_placement_group(self, run: str, placement_group: Any) -> None:
        """Remembers the placement group of a run's workers."""
        self.placement_groups.setdefault(run, []).append(placement_group)

    def add_reservation(self, run: str, requester: str) -> None:
        """Remembers the name by which a run reserves cores, see :func:`jobs.common.ray_internals.requester_of`."""
        self.reservations.setdefault(run, []).append(requester)

    def pop_held(self, run: str) -> tuple[list[Any], list[str]]:
        """Returns the placement groups and the reservations of a run, and forgets them."""
        return self.placement_groups.pop(run, []), self.reservations.pop(run, [])


def driver_node_options() -> dict[str, Any]:
    """Options of an actor or task that runs on the node of the driver and reserves no core there."""
    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
