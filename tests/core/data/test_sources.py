"""detector_core.data.sources: CSVs, folders and patterns tell the source and the group of an image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.data.sources import UNNAMED, Origins, SourceRules, find_origins, parse_source_of
from detector_core.data.splits import join_groups
from detector_core.errors import BadConfig, BadData
from tests.support.scores import few

PATHS = pd.Series(
    ["test/fake/gan/anna/1.png", "test/fake/gan/2.png", "test/fake/3.png", "test/real/phone/bert/4.png", "Fake/x/5.png"]
)


def origins(folder: Path, csvs: dict[str, str] | None = None, **rules: object) -> Origins:
    for name, text in (csvs or {}).items():
        (folder / name).write_text(text)
    return find_origins(PATHS, [str(folder)], SourceRules(**rules))  # type: ignore[arg-type]


def listed(found: Origins, column: str) -> list[str | None]:
    return [None if pd.isna(value) else value for value in found.frame[column]]


def test_without_a_word_there_is_one_source_and_no_group(tmp_path: Path) -> None:
    found = origins(tmp_path)
    assert listed(found, "source") == [UNNAMED] * 5
    assert listed(found, "group") == [None] * 5
    assert found.csvs == []


def test_folders_below_the_label_name_source_and_group(tmp_path: Path) -> None:
    found = origins(tmp_path, source_folder=1, group_folder=2)
    assert listed(found, "source") == ["gan", "gan", UNNAMED, "phone", "x"]
    assert listed(found, "group") == ["anna", None, None, "bert", None]


def test_patterns_overrule_folders_and_folders_overrule_csvs(tmp_path: Path) -> None:
    csvs = {
        "sources.csv": "path,source,group\ntest/fake/3.png, told ,\n./test/fake/gan/2.png,told,g 1\nno.png,told,\n",
        "train.csv": "path,label,group\ntest/real/phone/bert/4.png,1,b\n",
        "valid.csv": "path,label\ntest/fake/3.png,0\n",
    }
    found = origins(tmp_path, csvs, source_folder=1, source_of=(("test/real/*", "cameras"), ("*/*/*.png", "rest")))
    assert listed(found, "source") == ["rest", "rest", "rest", "cameras", "rest"]
    assert listed(found, "group") == [None, "g 1", None, "b", None]
    assert found.unknown_paths == ["no.png"]
    assert [Path(name).name for name in found.csvs] == ["train.csv", "sources.csv"]
    assert listed(origins(tmp_path, source_folder=1), "source") == ["gan", "gan", "told", "phone", "x"]


@pytest.mark.parametrize(
    ("csvs", "rules", "message"),
    [
        ({}, {"source_folder": 0}, "--source-folder is 0: it must be 1 or more"),
        (
            {},
            {"group_folder": 3},
            "--group-folder is 3: no image lies that deep, the first is test/fake/gan/anna/1.png",
        ),
        ({}, {"source_of": (("*.jpg", "a"),)}, r"--source-of \*\.jpg=a: no image matches .* such as test/fake/gan"),
        ({"sources.csv": "path,label\na,b\n"}, {}, "sources.csv has neither a column 'source' nor a column 'group'"),
        ({"sources.csv": "file,source\na,b\n"}, {}, "sources.csv has no column 'path'"),
        ({"sources.csv": ""}, {}, "sources.csv is not a CSV"),
        ({"sources.csv": "path,source\na.png,b\n"}, {}, "none of the paths is that of an image, the first is a.png"),
        (
            {"sources.csv": "path,source\ntest/fake/3.png,a\ntest/fake/3.png,b\n"},
            {},
            "test/fake/3.png has rows that differ in source or group",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, csvs: dict[str, str], rules: dict[str, object], message: str
) -> None:
    with pytest.raises((BadConfig, BadData), match=message):
        origins(tmp_path, csvs, **rules)


def test_source_of_is_pattern_and_name() -> None:
    assert parse_source_of("fake/a=b/*=stylegan 3 ") == ("fake/a=b/*", "stylegan 3")
    for text in ("fake/*", "=name", "fake/*= "):
        with pytest.raises(BadConfig, match="give PATTERN=NAME"):
            parse_source_of(text)


@few
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=25))
def test_joined_groups_are_the_connected_images(rows: list[tuple[int, str | None]]) -> None:
    """Compared with merging sets until nothing changes."""
    joined = join_groups(np.array([number for number, _ in rows]), pd.Series([name for _, name in rows], dtype=object))
    expected = [{index} for index in range(len(rows))]
    for index, (number, name) in enumerate(rows):
        for other, (other_number, other_name) in enumerate(rows):
            if number == other_number or (name is not None and name == other_name):
                merged = expected[index] | expected[other]
                for member in merged:
                    expected[member] = merged
    assert [set(np.flatnonzero(joined == group)) for group in joined] == expected
