"""The finished rounds of relearning of a feedback folder: ``FOLDER/rounds/ROUND/round.json``."""

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from detector_core import storage
from detector_core.data import feedback, review
from detector_core.data.review import ACCEPTED
from detector_core.data.tagged import Selection
from detector_core.errors import BadData, OperationRefused

ROUNDS: Final = "rounds"
ROUND: Final = "round.json"
MODEL: Final = "model"
"""The folder of the new model in that of its round, if it passed the gate."""


def write(round_folder: Path, selection: Selection, **more: Any) -> None:
    """Writes what a round has used and left out, and what it has compared (``more``)."""
    frame = selection.frame
    values = {
        "tags": sorted(frame["id"][~frame["held_out"]]),
        "held_out_tags": sorted(frame["id"][frame["held_out"]]),
        "left_out": selection.left_out,
        **more,
    }
    storage.write_bytes(round_folder / ROUND, json.dumps(values, indent=2).encode())


def delete_unfinished(folder: str | Path) -> None:
    """Deletes what rounds have left that died before their record was written, which comes last."""
    for path in (Path(folder) / ROUNDS).glob("*"):
        if not (path / ROUND).exists():
            storage.delete_folder(path)


def delete_models(folder: str | Path) -> list[str]:
    """Deletes the models of finished rounds that have learnt, or started from what learnt, from tags now deleted.

    What was deleted is what has no record any more, so a deletion that was killed before this is made up for by the
    next one. Also deletes what a round has left that was killed before its record was written.

    Returns:
        The names of the rounds whose model was deleted.

    Raises:
        BadData: a round.json or a record is damaged.
    """
    kept = {record.id for record in feedback.read(folder)}
    deleted = []
    for path in sorted((Path(folder) / ROUNDS).glob(f"*/{ROUND}")):
        values, model = _read(path), path.parent / MODEL
        if model.exists() and not kept.issuperset([*values["tags"], *values.get("inherited_tags", [])]):
            storage.delete_folder(model)
            deleted.append(path.parent.name)
    if (Path(folder) / ROUNDS).exists():
        with contextlib.suppress(OperationRefused), storage.locked(Path(folder, feedback.ROUND_LOCK), busy="running"):
            delete_unfinished(folder)  # a round that is running looks for deleted tags itself
    return deleted


def parts(folder: str | Path) -> dict[str, bool]:
    """For each tag that a finished round has used, whether it was held out. Raises BadData."""
    known: dict[str, bool] = {}
    for path in sorted((Path(folder) / ROUNDS).glob(f"*/{ROUND}")):
        values = _read(path)
        known |= dict.fromkeys(values["held_out_tags"], True) | dict.fromkeys(values["tags"], False)
    return known


def new_tags(folder: str | Path) -> set[str]:
    """The accepted tags that no finished round has used or left out.

    Raises:
        BadData: a round.json is damaged; see also :func:`.review.read`.
    """
    known: set[str] = set()
    for path in (Path(folder) / ROUNDS).glob(f"*/{ROUND}"):
        values = _read(path)
        known |= {*values["tags"], *values["held_out_tags"], *values["left_out"]}
    return {tag.record.id for tag in review.read(folder) if tag.state == ACCEPTED} - known


def _read(path: Path) -> dict[str, Any]:
    """The content of a round.json. Raises BadData."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        for name in ("tags", "held_out_tags", "left_out"):
            set(values[name])
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is not the record of a round ({error!r}): delete its folder") from None
    return values
