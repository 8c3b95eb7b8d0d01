"""The contact sheet of a review: one HTML file that opens offline, images side by side with tag, score and verdict."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from detector_core.data.review import Tag
from detector_core.errors import BadImage
from detector_core.evaluation.html_page import escape, page
from detector_core.images.decode import decode

SIDE = 224
"""Longer side of the images on the sheet, in pixels."""
_STYLE = """<style>
.sheet { display: flex; flex-wrap: wrap; gap: 1rem }
.sheet figure { margin: 0; width: 14rem }
.sheet img { width: 14rem; height: 14rem; object-fit: contain; background: #eee }
.sheet figcaption { overflow-wrap: anywhere; font-size: .9rem }
</style>"""


def draw(folder: str | Path, tags: Sequence[Tag]) -> str:
    """The HTML page of the tags, in the given order; an image that is missing or damaged is replaced by the reason."""
    figures = "".join(f"<figure>{_image(Path(folder), tag)}{_caption(tag)}</figure>" for tag in tags)
    return page("Review", [_STYLE, f"<h1>{len(tags)} tags</h1>", f'<div class="sheet">{figures}</div>'])


def _image(folder: Path, tag: Tag) -> str:
    try:
        image = Image.fromarray(decode((folder / tag.record.image).read_bytes()))
    except FileNotFoundError:
        return "<p>the image was deleted</p>"
    except BadImage as error:
        return f"<p>{escape(str(error))}</p>"
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<img alt="{tag.record.id}" src="{source}">'


def _caption(tag: Tag) -> str:
    record = tag.record
    score = "unknown" if record.p_fake is None else f"{record.p_fake:.3f}"
    lines = [
        f"<b>tagged {record.label}, predicted {escape(record.verdict or 'nothing')}</b>",
        f"p_fake {score}, {tag.state}",
        f"<code>{record.id}</code>",
        *(escape(f"{made.action} by {made.reviewer}: {made.reason}".rstrip(": ")) for made in tag.decisions),
    ]
    return f"<figcaption>{'<br>'.join(lines)}</figcaption>"
