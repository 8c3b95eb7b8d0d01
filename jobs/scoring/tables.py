"""Writes the results of a folder: tables as CSV and Parquet, the summary, and a contact sheet."""

import itertools
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from detector_core import storage
from detector_core.data import image_files
from detector_core.errors import BadImage
from detector_core.evaluation import contact_sheet
from detector_core.images.decoder import opened_in_child
from jobs.scoring.results import ROWS, Results
from serve_app.schemas import FaceAnswer

STEM, FACES, LEFT_OUT, SUMMARY, SHEET = (
    *("predictions", "faces.csv", "left_out.csv", "predictions.json", "suspicious.html"),
)
TABLE: Final = f"{STEM}.csv"
SHARD_ROWS: Final = 25 * ROWS
"""Rows of a file of the table. Spreadsheets open about a million."""
FORMULA: Final = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Characters with which a formula begins in a spreadsheet, also as wide characters of East Asian scripts."""


def write(
    out: str, results: Results, summary: dict[str, Any], left_out: Iterable[pd.DataFrame], *, per_face: bool, sheet: int
) -> None:
    """Writes everything into OUT, the summary last, and removes what an earlier call left there and this one did not.

    Args:
        summary: becomes ``predictions.json``.
        left_out: columns ``path`` and ``reason``.
        per_face: whether to write the table of faces.
        sheet: how many of the most suspicious images to show; 0 for no sheet.
    """
    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        folder = Path(scratch)
        names = write_shards(folder, STEM, results.table())
        write_csv(folder / LEFT_OUT, ["path", "reason"], left_out)
        names.append(LEFT_OUT)
        if per_face:
            scored = results.frames("path, scored_faces", "WHERE scored_faces NOT IN ('[]') ORDER BY p_fake DESC, path")
            write_csv(folder / FACES, ["path", *FaceAnswer.model_fields], map(face_table, scored))
            names.append(FACES)
        if sheet:
            (folder / SHEET).write_text(draw_sheet(results, summary["source"], sheet))
            names.append(SHEET)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False))
        for name in (*names, SUMMARY):
            storage.put_file(folder / name, storage.join(out, name))
    ours = re.compile(rf"{STEM}(-\d+)?\.(csv|parquet)|{re.escape(FACES)}|{re.escape(SHEET)}")
    for name in storage.names(out):
        if ours.fullmatch(name) and name not in names:
            storage.delete_file(storage.join(out, name))


def write_shards(folder: Path, stem: str, frames: Iterable[pd.DataFrame], rows: int = SHARD_ROWS) -> list[str]:
    """Writes tables as CSV and Parquet, ``stem.csv`` and ``stem.parquet``, then ``stem-2.csv`` and so on.

    Args:
        frames: of ROWS rows, but the last.
        rows: of each file; a multiple of ROWS.

    Returns:
        The names of the files.
    """
    names = []
    for number, shard in itertools.groupby(enumerate(frames), key=lambda pair: pair[0] * ROWS // rows):
        name = f"{stem}-{number + 1}" if number else stem
        names += [f"{name}.csv", f"{name}.parquet"]
        (_, first), *_ = head = list(itertools.islice(shard, 1))
        schema = pa.Schema.from_pandas(first, preserve_index=False)
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for _, frame in itertools.chain(head, shard):
                _append_csv(folder / f"{name}.csv", frame, header=frame is first)
                writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))
    return names


def write_csv(file: Path, columns: list[str], frames: Iterable[pd.DataFrame]) -> None:
    """Writes tables one after another as one CSV, with a header also if there are none."""
    _append_csv(file, pd.DataFrame(columns=columns), header=True)
    for frame in frames:
        _append_csv(file, frame[columns], header=False)


def _append_csv(file: Path, frame: pd.DataFrame, *, header: bool) -> None:
    safe = frame.assign(path=frame["path"].map(not_a_formula))
    safe.to_csv(file, mode="a", header=header, index=False)


def face_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per scored face, in the order of the images; boxes and quality flags are separated by spaces."""
    faces = [
        {"path": path, **{name: _words(value) for name, value in face.items()}}
        for path, scored in zip(rows["path"], rows["scored_faces"], strict=True)
        for face in json.loads(scored)
    ]
    return pd.DataFrame(faces, columns=["path", *FaceAnswer.model_fields])


def _words(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def not_a_formula(path: str) -> str:
    """The same path, but never one that a spreadsheet would execute as a formula."""
    return f"./{path}" if FORMULA.match(path) else path


def draw_sheet(results: Results, root: str, count: int) -> str:
    """The contact sheet of the images and clips with the highest p_fake, one per group of near-duplicates."""
    query = """WHERE p_fake NOT NULL GROUP BY coalesce("group", content) ORDER BY p_fake DESC, path LIMIT """
    figures = []
    for frame in results.frames("path, verdict, max(p_fake) AS p_fake", f"{query}{count}"):
        for path, verdict, p_fake in zip(frame["path"], frame["verdict"], frame["p_fake"], strict=True):
            lines = [f"{verdict}, p_fake {p_fake:.3f}", path]
            figures.append(contact_sheet.figure(_thumbnail(root, path), lines))
    return contact_sheet.page("Most suspicious", f"The {len(figures)} files with the highest p_fake", figures)


def _thumbnail(root: str, path: str) -> str:
    """The HTML of a small version of an image, or why there is none."""
    try:
        with opened_in_child(image_files.read(root, path)) as image:
            return contact_sheet.thumbnail(image.decode().image_HWC, path)
    except BadImage as error:
        return contact_sheet.instead(str(error))
