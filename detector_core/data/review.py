"""Reviews of donated images: who decided what about which tag, and what follows. Only accepted tags are learnt from.

::

    FOLDER/decisions/ID/HASH.json      one decision about the donation ID, named by its content
    FOLDER/deletions/ID.json           who deleted the donation ID, and when

FOLDER is that of :mod:`detector_core.data.feedback`. A decision is a file of its own and is never changed, so reviewers
on several machines cannot overwrite each other. Each reviewer's latest decision about a tag counts until they undo it.
A tag is accepted once one reviewer accepts it and nobody rejects it; if they contradict each other it is disputed.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from detector_core import storage
from detector_core.data import feedback
from detector_core.data.feedback import Record
from detector_core.errors import BadConfig, BadData, OperationRefused
from detector_core.labels import FAKE, LABELS

FORMAT: Final = 1
DECISIONS: Final = "decisions"
DELETIONS: Final = "deletions"
ACCEPT, REJECT, UNDO = "accept", "reject", "undo"
ACTIONS: Final = (ACCEPT, REJECT, UNDO)
WAITING, ACCEPTED, REJECTED, DISPUTED = "waiting", "accepted", "rejected", "disputed"
STATES: Final = (WAITING, ACCEPTED, REJECTED, DISPUTED)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one reviewer decided about one tag.

    Attributes:
        id: of the donation.
        action: accept, reject, or undo, which withdraws this reviewer's earlier decisions about it.
        reviewer: who decided.
        reason: how the reviewer knows; may be empty.
        time: UTC, ISO 8601.
        format: version of this format.
    """

    id: str
    action: str
    reviewer: str
    reason: str
    time: str
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A donation with the decisions about it, the oldest first, and the number of those who gave it."""

    record: Record
    decisions: tuple[Decision, ...] = ()
    givers: int = 1

    @property
    def state(self) -> str:
        """One of :data:`STATES`."""
        latest = {decision.reviewer: decision.action for decision in self.decisions}
        actions = set(latest.values()) - {UNDO}
        if len(actions) > 1:
            return DISPUTED
        return {ACCEPT: ACCEPTED, REJECT: REJECTED}[actions.pop()] if actions else WAITING


def read(folder: str | Path) -> list[Tag]:
    """All tags, the most informative first.

    Raises:
        BadData: there is no such folder, or a file of it is not a valid record or decision.
    """
    if not Path(folder).is_dir():
        raise BadData(f"{folder} is not a feedback folder: give the service's http.feedback_folder")
    tags = [_tag(folder, record) for record in feedback.read(folder)]
    return sorted(tags, key=lambda tag: (-informativeness(tag), tag.record.time, tag.record.id))


def read_one(folder: str | Path, id_: str) -> Tag | None:
    """The tag with an id, which may come from a stranger; None if there is none. Raises BadData: see :func:`read`."""
    record = feedback.read_one(folder, id_)
    return _tag(folder, record) if record else None


def _tag(folder: str | Path, record: Record) -> Tag:
    return Tag(record=record, decisions=_decisions(folder, record.id), givers=feedback.count_givers(folder, record.id))


def informativeness(tag: Tag) -> float:
    """How much a tag would teach, from 0 to 2.5, by which the tags to be reviewed are ordered.

    The error of the score, 1 more if the verdict contradicts the tag, and up to 0.5 more if several givers agree: 0.25
    for two of them, 0.4 for five. A score that is unknown counts as 0.5, and so does one of no face.
    """
    record = tag.record
    p_fake = 0.5 if record.p_fake is None else record.p_fake
    error = 1 - p_fake if record.label == FAKE else p_fake
    contradicted = record.verdict in LABELS and record.verdict != record.label
    return error + contradicted + 0.5 * (1 - 1 / tag.givers)


def decide(folder: str | Path, ids: Iterable[str], action: str, *, reviewer: str, reason: str = "") -> list[Decision]:
    """Records the same decision about several tags; all ids are looked up before anything is written.

    Args:
        ids: ids of donations, or beginnings of ids that only one donation has.
        action: one of :data:`ACTIONS`.
        reviewer: who decides.
        reason: how the reviewer knows.

    Raises:
        BadConfig: the action is unknown, or the reviewer has no name.
        BadData: an id is unknown or ambiguous.
        OperationRefused: there is no decision of this reviewer to undo.
    """
    if action not in ACTIONS:
        raise BadConfig(f"action is {action!r}: it must be one of {', '.join(ACTIONS)}")
    reviewer = check_reviewer(reviewer)
    complete = find_ids(folder, ids)
    for id_ in complete if action == UNDO else ():
        own = [decision for decision in _decisions(folder, id_) if decision.reviewer == reviewer]
        if not own or own[-1].action == UNDO:
            raise OperationRefused(f"{reviewer} has decided nothing about {id_}: there is nothing to undo")
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    decisions = [Decision(id=id_, action=action, reviewer=reviewer, reason=reason, time=now) for id_ in complete]
    for decision in decisions:
        data = json.dumps(asdict(decision), indent=1).encode()
        storage.write_bytes(Path(folder) / DECISIONS / decision.id / f"{sha256(data).hexdigest()[:32]}.json", data)
    return decisions


def delete(folder: str | Path, ids: Iterable[str], *, reviewer: str) -> list[str]:
    """Deletes donations: records, decisions, givers, and images that no other record refers to.

    Only the deletion is logged. A round of relearning that is using one of them ends without a new version
    (:func:`.tagged.check_unchanged`). The models that earlier rounds have left are deleted by
    :func:`.round_log.delete_models`, which is to be called next.

    Returns:
        The ids that were deleted; not those that somebody else has deleted meanwhile.

    Raises:
        BadConfig, BadData: see :func:`decide`.
    """
    reviewer, complete = check_reviewer(reviewer), find_ids(folder, ids)
    records = {record.id: record for record in feedback.read(folder)}
    deleted = [id_ for id_ in complete if id_ in records]
    for id_ in deleted:
        deletion = {"id": id_, "reviewer": reviewer, "time": datetime.now(UTC).isoformat(timespec="microseconds")}
        storage.write_bytes(Path(folder) / DELETIONS / f"{id_}.json", json.dumps(deletion, indent=1).encode())
        for notes in (DECISIONS, feedback.GIVERS):
            storage.delete_folder(Path(folder, notes, id_))
        record = records.pop(id_)
        storage.delete_file(Path(folder, feedback.RECORDS, f"{id_}.json"))
        if all(other.image != record.image for other in records.values()):
            storage.delete_file(Path(folder, record.image))
        for path in Path(folder, feedback.ROUND_IMAGES).glob(f"{id_}.*"):
            storage.delete_file(path)
    runs = Path(folder, feedback.ROUND_RUNS)
    if runs.exists():
        with contextlib.suppress(OperationRefused), storage.locked(Path(folder, feedback.ROUND_LOCK), busy="running"):
            storage.delete_folder(runs)  # of a round that was killed; one that is running deletes its own
    return deleted


def older_than(folder: str | Path, days: float) -> list[str]:
    """The ids of the donations that were given more than ``days`` ago, the oldest first."""
    until = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
    return [record.id for record in feedback.read(folder) if record.time < until]


def export(folder: str | Path, ids: Iterable[str], path: str | Path) -> list[str]:
    """Writes a ZIP file with the images of donations, and a ``tags.json`` of their records and decisions.

    Returns:
        The complete ids.

    Raises:
        BadData: an id is unknown or ambiguous, or a tag was deleted meanwhile.
    """
    complete = find_ids(folder, ids)
    records = {record.id: record for record in feedback.read(folder)}
    gone = [id_ for id_ in complete if id_ not in records]
    if gone:
        raise BadData(f"{gone[0]} in {folder} is gone: the tag was deleted meanwhile")
    tags = [_tag(folder, records[id_]) for id_ in complete]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # images are compressed already
        archive.writestr("tags.json", json.dumps([asdict(tag) for tag in tags], indent=1))
        for name in dict.fromkeys(tag.record.image for tag in tags):
            try:
                archive.writestr(name, Path(folder, name).read_bytes())
            except FileNotFoundError:
                raise BadData(
                    f"{Path(folder, name)} is gone: the tag was deleted, or its backup is incomplete"
                ) from None
    storage.write_bytes(path, buffer.getvalue())
    return complete


def find_ids(folder: str | Path, ids: Iterable[str]) -> list[str]:
    """The complete ids of donations, each once, in the given order. Raises BadData for one unknown or ambiguous."""
    known = [path.stem for path in (Path(folder) / feedback.RECORDS).glob("*.json")]
    complete = []
    for given in ids:
        matches = [id_ for id_ in known if given and id_.startswith(given)]
        if len(matches) != 1:
            what = f"is the beginning of {len(matches)} ids" if matches else "is not the id of a tag"
            raise BadData(f"{given!r} {what} in {folder}: jobs.review list shows them")
        complete += matches
    return list(dict.fromkeys(complete))


def check_reviewer(reviewer: str) -> str:
    """The name of a reviewer without white space around it. Raises BadConfig if nothing is left."""
    if not reviewer.strip():
        raise BadConfig("the reviewer has no name: give one, since every decision is recorded with it")
    return reviewer.strip()


def count_states(tags: Sequence[Tag]) -> dict[str, int]:
    """The number of tags in each of :data:`STATES`."""
    return {state: sum(tag.state == state for tag in tags) for state in STATES}


def _decisions(folder: str | Path, id_: str) -> tuple[Decision, ...]:
    decisions = []
    for path in (Path(folder) / DECISIONS / id_).glob("*.json"):
        try:
            fields: dict[str, Any] = json.loads(path.read_bytes())
            decision = Decision(**fields)
            for field in ("id", "action", "reviewer", "reason", "time"):
                if not isinstance(getattr(decision, field), str):
                    raise ValueError(f"{field} is {getattr(decision, field)!r}")
            datetime.fromisoformat(decision.time)
            if (decision.format, decision.id) != (FORMAT, id_) or decision.action not in ACTIONS:
                raise ValueError(f"format {decision.format}, id {decision.id}, action {decision.action}")
        except FileNotFoundError:
            continue
        except (ValueError, TypeError) as error:
            raise BadData(f"{path} is not a decision of format {FORMAT}: {error}") from None
        decisions.append(decision)
    return tuple(sorted(decisions, key=lambda decision: (decision.time, decision.action)))
