"""The finished rounds of relearning of a feedback folder: ``FOLDER/rounds/ROUND/round.json``."""

import json
from pathlib import Path
from typing import Any, Final

from detector_core import storage
from detector_core.data import review
from detector_core.data.review import ACCEPTED
from detector_core.data.tagged import Selection
from detector_core.errors import BadData

ROUNDS: Final = "rounds"
ROUND: Final = "round.json"


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


def new_tags(folder: str | Path) -> set[str]:
    """The accepted tags that no finished round has used or left out.

    Raises:
        BadData: a round.json is damaged; see also :func:`.review.read`.
    """
    known: set[str] = set()
    for path in (Path(folder) / ROUNDS).glob(f"*/{ROUND}"):
        try:
            values = json.loads(path.read_bytes())
            known |= {*values["tags"], *values["held_out_tags"], *values["left_out"]}
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(f"{path} is not the record of a round ({error!r}): delete its folder") from None
    return {tag.record.id for tag in review.read(folder) if tag.state == ACCEPTED} - known
