"""Contact sheets: one HTML file that opens offline, with images side by side and what there is to say about each."""

import base64
import io
from collections.abc import Iterable, Sequence

from PIL import Image

from detector_core.evaluation import html_page
from detector_core.evaluation.html_page import escape
from detector_core.images.decode import Pixels

SIDE = 224
"""Longer side of the images, in pixels."""
_STYLE = """<style>
.sheet { display: flex; flex-wrap: wrap; gap: 1rem }
.sheet figure { margin: 0; width: 14rem }
.sheet img { width: 14rem; height: 14rem; object-fit: contain; background: #eee }
.sheet figcaption { overflow-wrap: anywhere; font-size: .9rem }
</style>"""


def page(title: str, heading: str, figures: Iterable[str]) -> str:
    """A sheet of figures."""
    return html_page.page(
        title, [_STYLE, f"<h1>{escape(heading)}</h1>", f'<div class="sheet">{"".join(figures)}</div>']
    )


def figure(picture: str, lines: Sequence[str]) -> str:
    """A figure from the HTML of its image and the lines of its caption, of which the first is bold."""
    first, *others = map(escape, lines)
    return f"<figure>{picture}<figcaption>{'<br>'.join([f'<b>{first}</b>', *others])}</figcaption></figure>"


def thumbnail(image_HWC: Pixels, name: str) -> str:
    """The HTML of a small version of an image."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<img alt="{escape(name)}" src="{source}">'


def instead(reason: str) -> str:
    """The HTML that stands in for an image that cannot be shown."""
    return f"<p>{escape(reason)}</p>"
