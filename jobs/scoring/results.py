"""The results of a folder, in a database on the driver's disk: a million rows take no more memory than a thousand.

What was scored is kept below OUT, in Parquet files keyed by the content of a file and by the model, so that a later
call scores only what is new, and one that was interrupted goes on.
"""

import hashlib
import io
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core import storage
from detector_core.data.image_files import CANNOT_OPEN
from detector_core.errors import InsufficientResources
from detector_core.storage.listing import Entry
from jobs.scoring.rows import COLUMNS

STORE: Final = ".scores"
MAX_SHARDS: Final = 64
"""Parquet files of a store, beyond which they are joined."""
ROWS: Final = 20_000
"""Rows that are in memory at a time."""
MAX_COMPARED: Final = 200_000
"""Maximum number of different images that are searched for near-duplicates: every pair is compared."""
SCORE_COLUMNS: Final = ["content", *(name for name in COLUMNS if name != "path")]
FILE_COLUMNS: Final = ["path", "size", "modified", "content", "error", "left_out"]
TABLE_COLUMNS: Final = [
    *("path", "verdict", "p_fake", "logit", "faces", "crop_box", "warnings", "provenance", "copies", "group", "error")
]
_TYPES: Final = {**COLUMNS, "content": "str", "reason": "str", "copies": "Int64", "group": "Int64"}
_SCHEMA: Final = f"""
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, content TEXT, error TEXT, left_out TEXT);
CREATE TABLE scores (content TEXT PRIMARY KEY, {", ".join(f'"{name}"' for name in SCORE_COLUMNS[1:])});
CREATE TABLE groups (content TEXT PRIMARY KEY, "group" INTEGER);
CREATE VIEW results AS
  SELECT files.path, verdict, p_fake, logit, faces, crop_box, warnings, provenance, scored_faces, phash, files.content,
         "group", coalesce(files.error, scores.error) AS error, coalesce(files.left_out, scores.left_out) AS left_out
  FROM files LEFT JOIN scores USING (content) LEFT JOIN groups USING (content);
"""


@contextmanager
def database() -> Iterator["Results"]:
    """Results in a temporary file. Raises InsufficientResources if the disk is full."""
    with (
        tempfile.TemporaryDirectory(prefix="detector-") as folder,
        closing(sqlite3.connect(Path(folder, "results.sqlite"), isolation_level=None)) as connection,
    ):
        connection.executescript(_SCHEMA)
        try:
            yield Results(connection)
        except sqlite3.OperationalError as error:
            raise InsufficientResources(f"{folder}: {error}: free space there, or set TMPDIR") from None


class Results:
    """Files, the scores of their contents, and groups of near-duplicates."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add_files(self, entries: Iterable[Entry]) -> None:
        """Adds the files of a folder."""
        rows = ((entry.path, entry.size, entry.modified, None, None, entry.reason) for entry in entries)
        self._insert("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)

    def add_known(self, frame: pd.DataFrame) -> None:
        """Takes the contents of files that have not changed since an earlier call, by their size and time."""
        rows = frame[["content", "path", "size", "modified"]].itertuples(index=False)
        self._insert("UPDATE files SET content = ? WHERE path = ? AND size = ? AND modified = ?", rows)

    def add_contents(self, rows: Iterable[tuple[str, str | None, str | None, str | None]]) -> None:
        """Adds what :func:`jobs.scoring.rows.hash_files` has found."""
        ordered = ((content, error, left_out, path) for path, content, error, left_out in rows)
        self._insert("UPDATE files SET content = ?, error = ?, left_out = ? WHERE path = ?", ordered)

    def add_scores(self, frame: pd.DataFrame) -> None:
        """Adds rows of :func:`jobs.scoring.rows.predict_files` with their ``content``."""
        plain = frame[SCORE_COLUMNS].astype(object).where(frame[SCORE_COLUMNS].notna(), None)
        marks = ", ".join("?" * len(SCORE_COLUMNS))
        self._insert(f"INSERT OR REPLACE INTO scores VALUES ({marks})", plain.itertuples(index=False, name=None))

    def unread(self, count: int) -> Iterator[list[str]]:
        """Chunks of the paths whose content is unknown."""
        for rows in self._chunks("SELECT path FROM files WHERE coalesce(content, error, left_out) IS NULL", count):
            yield [path for (path,) in rows]

    def unscored(self, count: int) -> Iterator[list[tuple[str, str]]]:
        """Chunks of contents without a score, each with the path of one file that has it."""
        new = "content NOT NULL AND content NOT IN (SELECT content FROM scores)"
        yield from self._chunks(f"SELECT content, min(path) FROM files WHERE {new} GROUP BY 1", count)

    def count(self, condition: str = "1", of: str = "results") -> int:
        """How many rows fulfill a condition in SQL."""
        (number,) = self._db.execute(f"SELECT count(*) FROM {of} WHERE {condition}").fetchone()
        return int(number)

    def counts(self, column: str, condition: str) -> dict[str, int]:
        """How often each value of a column occurs."""
        return dict(self._db.execute(f"SELECT {column}, count(*) FROM results WHERE {condition} GROUP BY 1 ORDER BY 1"))

    def frames(self, columns: str, rest: str, of: str = "results") -> Iterator[pd.DataFrame]:
        """Rows as tables of at most ROWS rows."""
        cursor = self._db.execute(f"SELECT {columns} FROM {of} {rest}")
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(ROWS):
            yield pd.DataFrame(rows, columns=names).astype({n: t for n, t in _TYPES.items() if n in names})

    def table(self) -> Iterator[pd.DataFrame]:
        """The rows of the table, the highest p_fake first."""
        self._db.execute("CREATE TEMP TABLE copies AS SELECT content, count(*) AS copies FROM files GROUP BY 1")
        self._db.execute("CREATE UNIQUE INDEX temp.copies_of ON copies (content)")
        columns = ", ".join(f'"{name}"' for name in TABLE_COLUMNS)
        rest = "LEFT JOIN copies USING (content) WHERE left_out IS NULL ORDER BY p_fake DESC NULLS LAST, path"
        yield from self.frames(columns, rest)

    def group(self, compare: Callable[[pd.Series], NDArray[np.int64]]) -> bool:
        """Numbers the groups of near-duplicates, from 1; False if there are too many images to compare them all.

        Args:
            compare: gives the number of the group of each perceptual hash.
        """
        if self.count("phash NOT NULL", of="scores") > MAX_COMPARED:
            return False
        query = "SELECT DISTINCT content, phash FROM results WHERE phash NOT NULL ORDER BY content"
        frame = pd.DataFrame(self._db.execute(query).fetchall(), columns=["content", "phash"], dtype="str")
        if len(frame):
            frame["group"] = compare(frame["phash"])
            several = frame[frame.groupby("group")["content"].transform("size") > 1]
            numbers = (int(number) + 1 for number in pd.factorize(several["group"])[0])
            self._insert("INSERT INTO groups VALUES (?, ?)", zip(several["content"], numbers, strict=True))
        return True

    def _insert(self, statement: str, rows: Iterable[Any]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")

    def _chunks(self, query: str, count: int) -> Iterator[list[Any]]:
        """The rows of a query in chunks; other statements may change its tables meanwhile."""
        self._db.execute(f"CREATE TEMP TABLE chunked AS {query}")
        try:
            last = 0
            while rows := self._db.execute(
                "SELECT rowid, * FROM chunked WHERE rowid > ? ORDER BY rowid LIMIT ?", (last, count)
            ).fetchall():
                last = rows[-1][0]
                yield [row[1:] for row in rows]
        finally:
            self._db.execute("DROP TABLE temp.chunked")


class Store:
    """Rows that outlive a call, as Parquet files in a folder or below a URI."""

    def __init__(self, out: str, key: str) -> None:
        self.folder = storage.join(out, STORE, key)
        self._names: list[str] = storage.names(self.folder)

    def frames(self) -> Iterator[pd.DataFrame]:
        """The stored rows, one file after another."""
        for name in self._names:
            yield pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(self.folder, name))))

    def add(self, frame: pd.DataFrame) -> None:
        """Stores rows, but not those of files that may be readable later."""
        if "error" in frame:
            frame = frame[~frame["error"].fillna("").str.startswith(CANNOT_OPEN)]
        if len(frame):
            name = f"{uuid.uuid4().hex}.parquet"
            buffer = io.BytesIO()
            frame.to_parquet(buffer, index=False)
            storage.write_bytes(storage.join(self.folder, name), buffer.getvalue())
            self._names.append(name)

    def replace(self, frames: Iterable[pd.DataFrame]) -> None:
        """Stores rows instead of all that are stored."""
        old, self._names = self._names, []
        for frame in frames:
            self.add(frame)
        for name in old:
            storage.delete_file(storage.join(self.folder, name))

    @property
    def is_scattered(self) -> bool:
        """Whether it is in so many files that reading them takes long."""
        return len(self._names) > MAX_SHARDS


def key_of(*parts: str) -> str:
    """A short name for what results depend on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
