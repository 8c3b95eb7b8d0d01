"""Building blocks of the HTML pages: one file that holds its style and images, so that it opens offline."""

import base64
import html
from collections.abc import Iterable, Sequence

escape = html.escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums }
td + td { white-space: pre }
.warning { background: #b00020; color: white; font-size: 1.4rem; font-weight: bold; padding: .6rem 1rem }
.scroll { overflow-x: auto }
img { max-width: 100% }
@media print {
  body { max-width: none; margin: 0; font-size: 11px }
  .scroll { overflow: visible }
  tr, img { break-inside: avoid }
  h2 { break-after: avoid }
}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A page from its title and the HTML of its parts."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def warnings(texts: Iterable[str]) -> str:
    """What a reader must know first, in large letters."""
    return "".join(f'<p class="warning">{escape(text)}</p>' for text in texts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts; without a header row if all its cells are empty."""
    return html_table(header, ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows))


def interval_below(row: Sequence[str]) -> tuple[str, ...]:
    """The texts of a row with each interval on a line below its value, for a table with many columns."""
    return (row[0], *(cell.replace(" (", "\n(") for cell in row[1:]))


def html_table(header: Sequence[str], rows: Iterable[str]) -> str:
    """A table from the ``td`` elements of its rows; a wide one scrolls within the page."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in header) if any(header) else ""
    head = f"<thead><tr>{top}</tr></thead>" if top else ""  # repeated on every page of a print
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def image(name: str, png: bytes, width: str = "28rem") -> str:
    """An ``img`` element that contains its PNG file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{escape(name)}" style="width:{width}" src="{source}">'
