"""Accepted tags -> the images of a round of relearning, and the reason why others are left out.

What protects a round from tags that are wrong, planted, or would make its own tests meaningless:

* near-duplicates of validation and test images are refused, or the test split would be learnt;
* of a group of near-duplicates one tag is used, and none if their labels contradict each other;
* one giver contributes at most a given number of tags;
* a third of the groups is held out: never learnt from, only used to compare the new model with the live one. A group
  stays in the part that it had in earlier rounds, also when another of its near-duplicates is used.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core import storage
from detector_core.data import duplicates, feedback, review
from detector_core.data.inspect import perceptual_hash
from detector_core.data.manifest import Manifest
from detector_core.data.review import ACCEPTED, Tag, count_states
from detector_core.errors import BadData, BadImage, OperationRefused
from detector_core.images import align
from detector_core.images.decode import decode
from detector_core.labels import LABELS

PER_GIVER: Final = 50
"""Default of the largest number of tags of one giver in a round."""
MIN_PER_CLASS: Final = 5
"""Fewest tags of each class in a round."""
HELD_OUT_ONE_IN: Final = 3
PROTECTED_SPLITS: Final = ("valid", "test")
COLUMNS: Final = ("path", "label", "sha256", "phash", "id", "held_out")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The tags of a round.

    Attributes:
        frame: one row per tag with the columns :data:`COLUMNS`: path of the image that networks read, below the folder
            that was given; label; sha256 of the donated file; perceptual hash of the image that networks read; id of
            the donation; whether it is held out.
        left_out: why other accepted tags are not used, by id.
    """

    frame: pd.DataFrame
    left_out: dict[str, str]

    def without(self, reasons: Mapping[str, str]) -> "Selection":
        """The selection without some tags, and why, by id."""
        frame = self.frame[~self.frame["id"].isin(reasons)].reset_index(drop=True)
        return Selection(frame=frame, left_out={**self.left_out, **reasons})

    def check_classes(self, folder: str | Path) -> None:
        """Returns if enough tags of each class are left. Raises BadData, which says why others were left out."""
        for part, rows in (
            ("to learn from", self.frame[~self.frame["held_out"]]),
            ("held out", self.frame[self.frame["held_out"]]),
        ):
            for label in LABELS:
                count, needed = int((rows["label"] == label).sum()), MIN_PER_CLASS if part == "to learn from" else 1
                if count < needed:
                    reasons = "; ".join(
                        f"{n} because {why}" for why, n in Counter(self.left_out.values()).most_common(3)
                    )
                    raise BadData(
                        f"{folder} has {count} accepted {label} tags {part}, and a round needs {needed}"
                        f"{f' (left out: {reasons})' if reasons else ''}: accept more with jobs.review"
                    )


@contextmanager
def round_images(folder: str | Path) -> Iterator[Path]:
    """The folder for the images of a round, below the feedback folder, so that a deletion reaches it; empty at first.

    It is deleted after the round. What a round that was killed has left is deleted by the next one.
    """
    work = Path(folder) / feedback.ROUND_IMAGES
    storage.delete_folder(work)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        storage.delete_folder(work)


def check_unchanged(folder: str | Path, selection: Selection) -> None:
    """Returns if all tags of a round are still accepted.

    Raises:
        OperationRefused: some were deleted or decided otherwise while the round was running.
    """
    accepted = {tag.record.id for tag in review.read(folder) if tag.state == ACCEPTED}
    gone = sorted({*selection.frame["id"]} - accepted)
    if gone:
        raise OperationRefused(
            f"{len(gone)} tags of this round were deleted or are no longer accepted, such as {gone[0]}: start it again"
        )


def select(
    folder: str | Path,
    tags: Sequence[Tag],
    data: Manifest,
    work: Path,
    *,
    per_giver: int = PER_GIVER,
    parts: Mapping[str, bool] = MappingProxyType({}),
) -> Selection:
    """Selects the tags of a round and writes their images as networks read them, as PNG files.

    Args:
        folder: the feedback folder.
        tags: all tags of the folder, the most informative first: those are kept where there are too many.
        data: the data set of the live model. Faces are cut out as in ``jobs.prepare --faces``, except for generated
            demo data, in which no face would be found.
        work: folder for the images; delete it after the round.
        per_giver: largest number of tags of one giver; tags of unknown givers count as those of one.
        parts: whether earlier rounds have held out a tag that they used, by id (:func:`.round_log.parts`).

    Raises:
        BadData: too few accepted tags are left to learn from.
        BadManifest: the data set was prepared with other hashes.
    """
    accepted = [tag for tag in tags if tag.state == ACCEPTED]
    if not accepted:
        counts = ", ".join(f"{count} {state}" for state, count in count_states(tags).items())
        raise BadData(f"{folder} has no accepted tags ({counts}): accept some with jobs.review")
    left_out: dict[str, str] = {}
    hashes: dict[str, list[str]] = {}
    for tag in accepted:
        try:
            hashes[tag.record.id] = _write_image(Path(folder), tag, work, generated=data.generated)
        except FileNotFoundError:
            left_out[tag.record.id] = "its image was deleted"
        except BadImage as error:
            left_out[tag.record.id] = str(error)
    usable = [tag for tag in accepted if tag.record.id in hashes]
    group_T, similar = _groups([hashes[tag.record.id] for tag in usable], data)
    left_out |= {
        tag.record.id: f"it shows the same as {reason}" for tag, reason in zip(usable, similar, strict=True) if reason
    }
    kept, reasons = _apply_caps(usable, group_T, left_out, per_giver, parts)
    left_out |= reasons
    rows = [_row(tag, hashes[tag.record.id][0], held_out) for tag, held_out in kept]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame = frame.astype({"held_out": bool})  # of no rows, it would be a column of objects
    selection = Selection(frame=frame, left_out=left_out)
    selection.check_classes(folder)
    return selection


def _write_image(folder: Path, tag: Tag, work: Path, *, generated: bool) -> list[str]:
    """Writes what a network reads of a donated image; returns the perceptual hashes of it and of the whole image."""
    data = (folder / tag.record.image).read_bytes()
    whole = perceptual_hash(decode(data))
    read = align.save_as_read(tag.record.id, data, folder=str(work), generated=generated)
    return [whole if read == data else perceptual_hash(decode(read)), whole]


def _groups(hashes: Sequence[Sequence[str]], data: Manifest) -> tuple[NDArray[np.int64], list[str]]:
    """The group of near-duplicates of each of T tags, and for each a protected image in its group, or nothing."""
    count = len(hashes)
    if not count:
        return np.empty(0, dtype=np.int64), []
    protected = data.frame[data.frame["split"].isin(PROTECTED_SPLITS)]
    all_hashes = [*(pair[0] for pair in hashes), *(pair[1] for pair in hashes), *protected["phash"]]
    if len({len(phash) for phash in all_hashes}) > 1:
        raise BadData(f"the data set {data.name} has perceptual hashes of another length: prepare it again")
    packed = duplicates.unpack_hashes(all_hashes)
    edges = [duplicates.near_duplicate_edges(packed, range(2 * count))]
    edges.append(np.stack([np.arange(count), np.arange(count) + count], axis=1))
    group = duplicates.connected_groups(len(packed), edges)
    names = [f"{row.path} of the {row.split} split" for row in protected.itertuples()]
    by_group = dict(zip(group[2 * count :].tolist(), names, strict=True))
    return group[:count], [by_group.get(number, "") for number in group[:count].tolist()]


def _apply_caps(
    usable: Sequence[Tag],
    group_T: NDArray[np.int64],
    left_out: dict[str, str],
    per_giver: int,
    parts: Mapping[str, bool],
) -> tuple[list[tuple[Tag, bool]], dict[str, str]]:
    """The tags that are kept, each with whether it is held out, and why others are not."""
    records: dict[int, list[feedback.Record]] = {}
    for tag, group in zip(usable, group_T.tolist(), strict=True):
        records.setdefault(group, []).append(tag.record)
    held_out = {group: _is_held_out(members, parts) for group, members in records.items()}
    kept: list[tuple[Tag, bool]] = []
    reasons: dict[str, str] = {}
    used_groups: set[int] = set()
    given: Counter[str] = Counter()
    for tag, group in zip(usable, group_T.tolist(), strict=True):
        record = tag.record
        if record.id in left_out:
            continue
        is_held_out = held_out[group]
        if len({member.label for member in records[group]}) > 1:
            reasons[record.id] = "near-duplicates of it are tagged differently"
        elif is_held_out is None:
            reasons[record.id] = "earlier rounds have learnt from some of its near-duplicates and held out others"
        elif group in used_groups:
            reasons[record.id] = "a near-duplicate of it is used"
        elif given[record.giver] >= per_giver:
            reasons[record.id] = f"its giver has {per_giver} tags in this round already"
        else:
            used_groups.add(group)
            given[record.giver] += 1
            kept.append((tag, is_held_out))
    return kept, reasons


def _is_held_out(group: Sequence[feedback.Record], parts: Mapping[str, bool]) -> bool | None:
    """Whether a group of near-duplicates is held out, which is the same in every round.

    It is as in earlier rounds; None if these have done both. A new group is drawn from its image that was given first.
    """
    before = {parts[record.id] for record in group if record.id in parts}
    if before:
        return before.pop() if len(before) == 1 else None
    first = min(group, key=lambda record: (record.time, record.id))
    return int(hashlib.sha256(f"held out {first.sha256}".encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def _row(tag: Tag, phash: str, held_out: bool) -> dict[str, object]:
    record = tag.record
    return {
        "path": align.portrait_name(record.id),
        "label": record.label,
        "sha256": record.sha256,
        "phash": phash,
        "id": record.id,
        "held_out": held_out,
    }
