"""Prints the settings of the service as Markdown tables, or writes them into a page of the documentation.

python -m serve_app.settings_table                       prints them
python -m serve_app.settings_table docs/http-api.md      replaces what is between the markers in the page
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from serve_app.settings import Scale, Settings

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def tables() -> str:
    """Three Markdown tables: the settings under ``http``, those under ``front``, and those of the deployments."""
    rows = list(_rows(Settings()))
    http = [row for row in rows if row[0].startswith("http.")]
    front = [row for row in rows if row[0].startswith("front.")]
    deployment = [row for row in rows if row not in http and row not in front]
    titles = {"HTTP": http, "Proxy in front of the replicas": front, "Model, batches and replicas": deployment}
    return "\n\n".join(f"### {title}\n\n{_table(part)}" for title, part in titles.items()) + "\n"


def rewrite(page: str) -> str:
    """The text of a page with current tables between its markers. Raises ValueError if it has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def _rows(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Scale):
            yield f"{prefix}{name}", "", field.description or ""
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _default(name, value), field.description or ""


def _default(name: str, value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and name.endswith("_bytes") and value:
        return f"`{value}` " + (f"({value // 2**20} MiB)" if value >= 2**20 else f"({value // 2**10} KiB)")
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {default} | {description} |" for name, default, description in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        path.write_text(rewrite(path.read_text()))
    else:
        print(tables())
