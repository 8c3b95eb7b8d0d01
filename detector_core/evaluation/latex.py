"""Tables for LaTeX (booktabs)."""

from collections.abc import Sequence
from typing import NamedTuple

_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "±": r"\ensuremath{\pm}"},
}


class Table(NamedTuple):
    """A table of plain texts; ``title`` becomes a comment above it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def to_latex(*tables: Table) -> bytes:
    """One ``tabular`` per table, the first column left-aligned and the others right-aligned."""
    lines = [r"% needs \usepackage{booktabs}"]
    for title, header, rows in tables:
        header_line, *row_lines = [" & ".join(map(_escape, row)) + r" \\" for row in (header, *rows)]
        lines += [
            f"% {' '.join(title.split())}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            *(r"\toprule", header_line, r"\midrule", *row_lines, r"\bottomrule", r"\end{tabular}"),
        ]
    return "\n".join([*lines, ""]).encode()


def _escape(text: str) -> str:
    """A text with the characters that LaTeX reads as commands escaped."""
    return "".join(_ESCAPES.get(character, character) for character in text)
