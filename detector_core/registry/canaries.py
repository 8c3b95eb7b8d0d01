"""The canaries of MODELS: how one is started, counted and ended (:mod:`detector_core.registry.canary` says what it is).

::

    MODELS/
      canary                      the latest canary; it runs until it has an outcome
      canaries/ID/REPLICA.json    what one replica of a service has compared so far
      canaries/ID/end.json        how the canary ended, and the totals; written once

Every replica writes a file of its own, so nothing is lost but what a replica that dies has counted since it last wrote,
and no replica is needed for the decision.
"""

import dataclasses
import datetime
import json
from pathlib import Path

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact, OperationRefused
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.canary import MAX_DISAGREEMENT, MAX_SHARE, Canary, Counts, Outcome, Status

CANARY, CANARIES, END = "canary", "canaries", "end.json"


def latest(models: str | Path) -> Canary | None:
    """The canary that runs, or else the last one; None without any. Raises BrokenArtifact."""
    path = storage.join(models, CANARY)
    try:
        return Canary.from_dict(storage.read_json(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenArtifact(f"{path} is damaged ({error!r}): delete it, and start the canary again") from None


def totals(models: str | Path, canary: Canary) -> Counts:
    """What all replicas have compared in a canary. Raises BrokenArtifact."""
    folder, total = storage.join(models, CANARIES, canary.id), Counts()
    for name in storage.names(folder):
        if name.startswith(".") or name == END:
            continue
        path = storage.join(folder, name)
        try:
            total += Counts(**storage.read_json(path))
        except (ValueError, TypeError) as error:
            raise BrokenArtifact(f"{path} is damaged ({error!r}): delete it") from None
    return total


def check(models: str | Path, share: float, max_disagreement: float) -> None:
    """Checks whether a canary could start.

    Raises:
        BadConfig: the share or the bound cannot work.
        OperationRefused: another canary is running.
    """
    if not 0 < share <= MAX_SHARE:
        raise BadConfig(f"--canary is {share:g}: it must be above 0 and at most {MAX_SHARE:g}")
    if not 0 < max_disagreement < 1:
        raise BadConfig(f"--max-disagreement is {max_disagreement:g}: it must be above 0 and below 1")
    versions.live_location(models)
    status = settle(models)
    if status and not status.canary.outcome:
        raise OperationRefused(
            f"a canary of {status.canary.candidate} is running in {models}: end it with --canary-finish or "
            "--canary-stop first"
        )


def start(models: str | Path, candidate: str, *, share: float, max_disagreement: float = MAX_DISAGREEMENT) -> Canary:
    """Lets a version of MODELS answer about a share of the images.

    Raises:
        BadConfig, OperationRefused: see :func:`check`; the candidate is live already, or reads other crops.
        BrokenArtifact: there is no such version.
    """
    check(models, share, max_disagreement)
    live = versions.history(models)[0]
    if candidate == live:
        raise OperationRefused(f"{candidate} is live in {models} already: there is nothing to compare")
    specs = [artifacts.read(versions.fetch(versions.locate(models, name, CANARY))).spec for name in (candidate, live)]
    if specs[0].preprocess != specs[1].preprocess:
        raise OperationRefused(
            f"{candidate} and the live {live} prepare images differently ({specs[0].preprocess.image_size} and "
            f"{specs[1].preprocess.image_size} px), and a canary compares them on the same crops: promote it without "
            "--canary"
        )
    now = _now()
    canary = Canary(
        id=f"{now:%Y%m%d-%H%M%S}-{candidate}",
        candidate=candidate,
        live=live,
        share=share,
        max_disagreement=max_disagreement,
        started=now.isoformat(timespec="seconds"),
    )
    _write(storage.join(models, CANARY), canary)
    return canary


def record(models: str | Path, canary: Canary, replica: str, counts: Counts) -> None:
    """Stores what one replica has compared so far in a canary."""
    _write(storage.join(models, CANARIES, canary.id, f"{replica}.json"), counts)


def settle(models: str | Path) -> Status | None:
    """The status of the latest canary; ends it if the verdicts differ too often or another version is live.

    Raises:
        BrokenArtifact: a file of the canary is damaged.
    """
    canary = latest(models)
    if canary is None:
        return None
    if canary.outcome:
        return Status.of(canary, canary.counts)
    status, live = Status.of(canary, totals(models, canary)), versions.history(models)[:1]
    if live == [canary.candidate]:
        return end(models, status, "promoted", "the candidate became the live version")
    if live != [canary.live]:
        return end(models, status, "live_changed", f"{''.join(live) or 'no version'} became the live version")
    if status.state == "disagrees":
        return end(models, status, "went_back", str(status))
    return status


def end(models: str | Path, status: Status, outcome: Outcome, reason: str) -> Status:
    """Ends a canary, unless it has ended or was stopped meanwhile: the candidate answers nothing more."""
    ended = dataclasses.replace(
        status.canary,
        outcome=outcome,
        reason=reason,
        ended=_now().isoformat(timespec="seconds"),
        counts=status.counts,
    )
    for where in (storage.join(models, CANARIES, ended.id, END), storage.join(models, CANARY)):
        now = latest(models)  # before each, for an operator may have stopped it, and this must not bring it back
        if now is None or now.id != ended.id or now.outcome:
            return Status.of(now or ended, (now or ended).counts)
        _write(where, ended)
    return Status.of(ended, ended.counts)


def not_loaded(models: str | Path, canary: Canary, reason: str) -> None:
    """Ends a canary whose candidate a replica cannot load."""
    end(models, Status.of(canary, totals(models, canary)), "not_loaded", reason)


def finish(models: str | Path, *, force: bool = False) -> str:
    """Makes the candidate live and returns it; :func:`settle` then ends the canary.

    Args:
        force: also while the comparison is not decided.

    Raises:
        OperationRefused: no canary is running, the verdicts have not been found to agree, or it ended meanwhile.
        BrokenArtifact: the candidate is missing or damaged.
    """
    canary = _agreeing(models, force)
    with storage.local_copy(versions.locate(models, canary.candidate, CANARY)) as local:
        versions.verify(local)
    if _agreeing(models, force).id != canary.id:  # to copy it from a store may have taken minutes
        raise OperationRefused(f"{canary.candidate} is not promoted, for another canary has begun meanwhile")
    versions.make_live(models, canary.candidate)
    return canary.candidate


def stop(models: str | Path) -> Canary:
    """Ends the canary that is running, or takes note of one that has ended; either is then no longer reported.

    Raises:
        OperationRefused: there is none.
    """
    status = settle(models)
    if status is None:
        raise OperationRefused(f"there is no canary in {models}")
    if not status.canary.outcome:
        status = end(models, status, "stopped", "by an operator")
    storage.delete_file(storage.join(models, CANARY))
    return status.canary


def _agreeing(models: str | Path, force: bool) -> Canary:
    """The canary that runs. Raises OperationRefused if there is none, or it is not decided and not forced."""
    status = settle(models)
    if status is None or status.canary.outcome:
        raise OperationRefused(f"no canary is running in {models}")
    if status.state != "agrees" and not force:
        raise OperationRefused(
            f"{status.canary.candidate} is not promoted, for it is not decided that it agrees: {status}; wait, or "
            "promote it anyway with --force"
        )
    return status.canary


def _write(where: str, value: Canary | Counts) -> None:
    storage.write_bytes(where, json.dumps(dataclasses.asdict(value), indent=1).encode())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
