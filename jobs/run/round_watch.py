"""Rounds of relearning that begin by themselves: when enough tags were accepted, or when the scores drift."""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from detector_core.data import round_log
from detector_core.errors import (
    BadConfig,
    ClusterLost,
    DetectorError,
    InsufficientResources,
    OperationRefused,
    StorageUnavailable,
)
from jobs.common import cli, drift_metric

WATCH_S = 600.0
NEW_TAGS = 30
MAY_PASS = (ClusterLost, InsufficientResources, OperationRefused, StorageUnavailable)
"""What may be over at the next look: a store or cluster that is away, another round that is running."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --watch, --new-tags and --metrics."""
    group = parser.add_argument_group("rounds by themselves")
    group.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_S,
        metavar="SECONDS",
        help=f"run rounds as tags are accepted, and look for them every SECONDS [{WATCH_S:g}]",
    )
    group.add_argument(
        "--new-tags", type=int, default=NEW_TAGS, metavar="N", help="new accepted tags that begin a round [%(default)s]"
    )
    group.add_argument(
        "--metrics", metavar="URL", help="Ray's metrics of the service: a round begins when its scores drift, too"
    )


def check(arguments: argparse.Namespace) -> None:
    """Returns if the flags can work.

    Raises:
        BadConfig: they cannot.
        BadData: there is no such feedback folder to watch, or it is damaged.
    """
    if arguments.new_tags < 1:
        raise BadConfig(f"--new-tags is {arguments.new_tags}: it must be 1 or more")
    if arguments.watch is not None and not arguments.watch > 0:
        raise BadConfig(f"--watch is {arguments.watch:g}: it must be above 0, the seconds between two looks")
    if arguments.metrics and arguments.watch is None:
        raise BadConfig("--metrics is read by --watch only: give both")
    if arguments.watch is None:
        return
    if not arguments.data:
        raise BadConfig("--watch needs the data set that the live model was trained on: name it with --data DATASET")
    if arguments.metrics:
        drift_metric.check_address(arguments.metrics)
    round_log.new_tags(arguments.feedback)


def watch(arguments: argparse.Namespace, run_round: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the result of each round, with its ``reason``; does not end.

    A look that fails, and a round that fails for a reason in MAY_PASS, are repeated at the next look; any other round
    that could not run is tried again when other tags are accepted. What was used is read from the rounds themselves, so
    a watch that was killed goes on where it was.
    """
    tried: set[str] = set()
    look_again = f"the next look is in {arguments.watch:g} s"
    while True:
        reason, tags = None, tried
        try:
            tags = round_log.new_tags(arguments.feedback)
            reason = _reason(arguments, tags) if tags and tags != tried else None
        except DetectorError as error:
            cli.say(f"error: {error}; {look_again}")
        if reason:
            tried = tags
            cli.say(f"a round begins: {reason}")
            try:
                yield {"reason": reason, **run_round()}
            except cli.NegativeResult as negative:
                yield {"reason": reason, **negative.result}
            except MAY_PASS as error:
                tried = set()
                cli.say(f"error: {error}; {look_again}")
            except DetectorError as error:
                cli.say(f"error: {error}; waiting for other tags")
        time.sleep(arguments.watch)


def _reason(arguments: argparse.Namespace, tags: set[str]) -> str | None:
    """Why a round should begin; None if it should not."""
    if len(tags) >= arguments.new_tags:
        return f"{len(tags)} new accepted tags"
    drift = drift_metric.read(arguments.metrics) if arguments.metrics else 0.0
    if drift > drift_metric.LIMIT:
        return f"the scores drift ({drift:.2f}, above {drift_metric.LIMIT:g}), and there are {len(tags)} new tags"
    return None
