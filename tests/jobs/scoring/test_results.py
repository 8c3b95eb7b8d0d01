"""The results of a folder: kept by content, written in shards, whatever their number."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector_core.data.image_files import CANNOT_OPEN
from detector_core.errors import InsufficientResources
from detector_core.storage.listing import Entry
from jobs.scoring import results as module
from jobs.scoring import tables
from jobs.scoring.results import SCORE_COLUMNS, Results, Store, database
from jobs.scoring.rows import COLUMNS


def scores(contents: list[str], **columns: Any) -> pd.DataFrame:
    """Rows as :func:`jobs.scoring.rows.predict_files` gives them."""
    table = pd.DataFrame({"content": contents} | columns, columns=SCORE_COLUMNS)
    return table.astype({name: kind for name, kind in COLUMNS.items() if name in SCORE_COLUMNS})


def fill(results: Results, count: int) -> None:
    """``count`` files with p_fake from 0 to 1, of which every tenth is a copy of the one before."""
    paths = [f"{number:04}" for number in range(count)]
    contents = [f"content {number - (number % 10 == 9):04}" for number in range(count)]
    results.add_files(Entry(path=path, size=1, modified=2) for path in paths)
    results.add_contents((path, content, None, None) for path, content in zip(paths, contents, strict=True))
    different = sorted(set(contents))
    p_fake = np.linspace(0, 1, len(different))
    results.add_scores(scores(different, p_fake=p_fake, verdict="real", phash="00" * 68))


def test_a_large_table_is_written_in_shards_that_together_are_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 10)
    monkeypatch.setattr(tables, "ROWS", 10)
    with database() as results:
        fill(results, 47)
        names = tables.write_shards(tmp_path, "p", results.table(), rows=20)
    assert names == ["p.csv", "p.parquet", "p-2.csv", "p-2.parquet", "p-3.csv", "p-3.parquet"]
    csv = [pd.read_csv(tmp_path / name, dtype={"path": str}) for name in names[::2]]
    parquet = [pd.read_parquet(tmp_path / name) for name in names[1::2]]
    assert [len(table) for table in csv] == [len(table) for table in parquet] == [20, 20, 7]
    assert len({str(table.dtypes.to_dict()) for table in parquet}) == 1
    whole = pd.concat(csv)
    assert whole["path"].nunique() == 47
    assert whole["p_fake"].is_monotonic_decreasing
    assert whole.set_index("path")["copies"].loc[["0007", "0008", "0009"]].tolist() == [1, 2, 2]


def test_what_is_kept_is_read_back_and_joined_when_it_is_scattered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SHARDS", 2)
    store = Store(str(tmp_path), "key")
    for number in range(3):
        store.add(scores([f"{number}"], p_fake=number / 2))
    store.add(scores(["gone", "damaged"], error=[f"{CANNOT_OPEN}: No such file", "damaged image: cut off"]))
    again = Store(str(tmp_path), "key")
    assert again.is_scattered
    with database() as results:
        for frame in again.frames():
            results.add_scores(frame)
        again.replace(results.frames(", ".join(f'"{name}"' for name in SCORE_COLUMNS), "", of="scores"))
    assert not Store(str(tmp_path), "key").is_scattered
    (frame,) = Store(str(tmp_path), "key").frames()
    assert sorted(frame["content"]) == ["0", "1", "2", "damaged"]
    assert frame.set_index("content").loc["1", "p_fake"] == 0.5
    assert list(Store(str(tmp_path), "other").frames()) == []


def test_only_what_is_unknown_is_read_and_scored() -> None:
    with database() as results:
        entries = [Entry(path=path, size=1, modified=1) for path in "abcd"]
        results.add_files([*entries, Entry(path=".x", reason="hidden")])
        results.add_known(pd.DataFrame({"path": ["a", "b"], "size": 1, "modified": [1, 9], "content": ["A", "B"]}))
        seen = []
        for paths in results.unread(1):  # the rows change while they are iterated
            seen += paths
            results.add_contents(
                (path, path.upper(), None, None) if path < "d" else (path, None, "x", None) for path in paths
            )
        assert seen == ["b", "c", "d"], "a has not changed, b has"
        results.add_scores(scores(["A"], p_fake=0.5))
        assert list(results.unscored(9)) == [[("B", "b"), ("C", "c")]]
        assert results.counts("left_out", "left_out NOT NULL") == {"hidden": 1}


def test_too_many_images_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with database() as results:
        fill(results, 20)
        assert results.group(lambda phashes: np.zeros(len(phashes), dtype=np.int64))
        assert results.count('"group" = 1') == 20
    monkeypatch.setattr(module, "MAX_COMPARED", 5)
    with database() as results:
        fill(results, 20)
        assert not results.group(lambda _: pytest.fail("compared"))


def test_a_full_disk_is_one_line() -> None:
    def overfill() -> None:
        with database() as results:
            results._db.execute("PRAGMA max_page_count = 20")
            fill(results, 5000)

    with pytest.raises(InsufficientResources, match="database or disk is full: free space there, or set TMPDIR"):
        overfill()
