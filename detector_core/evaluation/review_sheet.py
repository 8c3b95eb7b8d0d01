"""The contact sheet of a review: images side by side with tag, score and verdict."""

from collections.abc import Sequence
from pathlib import Path

from detector_core.data.review import Tag
from detector_core.errors import BadImage
from detector_core.evaluation import contact_sheet
from detector_core.images.decode import decode


def draw(folder: str | Path, tags: Sequence[Tag]) -> str:
    """The HTML page of the tags, in the given order; an image that is missing or damaged is replaced by the reason."""
    figures = (contact_sheet.figure(_image(Path(folder), tag), _caption(tag)) for tag in tags)
    return contact_sheet.page("Review", f"{len(tags)} tags", figures)


def _image(folder: Path, tag: Tag) -> str:
    try:
        return contact_sheet.thumbnail(decode((folder / tag.record.image).read_bytes()), tag.record.id)
    except FileNotFoundError:
        return contact_sheet.instead("the image was deleted")
    except BadImage as error:
        return contact_sheet.instead(str(error))


def _caption(tag: Tag) -> list[str]:
    record = tag.record
    score = "unknown" if record.p_fake is None else f"{record.p_fake:.3f}"
    return [
        f"tagged {record.label}, predicted {record.verdict or 'nothing'}",
        f"p_fake {score}, {tag.state}" + (f", {tag.givers} givers" if tag.givers > 1 else ""),
        record.id,
        *(f"{made.action} by {made.reviewer}: {made.reason}".rstrip(": ") for made in tag.decisions),
    ]
