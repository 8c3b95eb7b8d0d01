"""Where images come from: their *source* (a generator or a camera set) and their *group* (a person, video or seed).

Metrics are reported by source, and no group is divided between two splits. Both are told by the CSVs of a data set, by
the names of folders, or by patterns of paths; later ones in this order overrule earlier ones.
"""

import fnmatch
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from detector_core import storage
from detector_core.errors import BadConfig, BadData
from detector_core.labels import LABELS, SPLITS

UNNAMED: Final = "unnamed"
"""The source of images of which nothing says where they come from."""
SOURCE, GROUP = "source", "group"
CSVS: Final = (*(f"{split}.csv" for split in SPLITS), "sources.csv")
"""CSVs with a column ``path`` and one or both of ``source`` and ``group``, next to the folders of the images."""


@dataclass(frozen=True, kw_only=True)
class SourceRules:
    """How to tell the source and the group of an image, besides the CSVs.

    Attributes:
        source_folder: the source is the name of the n-th folder below the folder of the label, from 1; None if no
            folder tells it.
        group_folder: the same for the group.
        source_of: (pattern, source) pairs; the first whose pattern matches the whole path below the data set's root.
    """

    source_folder: int | None = None
    group_folder: int | None = None
    source_of: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origins:
    """Source and group of each image.

    Attributes:
        frame: ``path``, ``source`` and ``group``, which is None for an image without one.
        unknown_paths: paths in CSVs that name no image.
        csvs: the CSVs that were read.
    """

    frame: pd.DataFrame
    unknown_paths: list[str]
    csvs: list[str]


def parse_source_of(text: str) -> tuple[str, str]:
    """``PATTERN=NAME`` as a pair. Raises BadConfig."""
    pattern, equals, name = text.rpartition("=")
    if not equals or not pattern or not name.strip():
        raise BadConfig(f"--source-of {text}: give PATTERN=NAME, such as 'fake/sg3-*=stylegan3'")
    return pattern, name.strip()


def find_origins(paths: pd.Series, folders: Sequence[str], rules: SourceRules) -> Origins:
    """Tells the source and the group of each image.

    Args:
        paths: relative to the root of the data set.
        folders: folders or URIs whose CSVs are read, if they have any.

    Raises:
        BadConfig: a pattern matches no image, or no image lies in a folder of that level.
        BadData: a CSV with a column ``source`` or ``group`` has no column ``path``, contradicts another, or names none
            of the images.
    """
    frame = pd.DataFrame({"path": paths.to_numpy(), SOURCE: None, GROUP: None}, dtype=object)
    listed, csvs = _read_csvs(folders)
    known = listed["path"].isin(frame["path"])
    if len(listed) and not known.any():
        raise BadData(
            f"{' and '.join(csvs)}: none of the paths is that of an image, the first is {listed['path'].iloc[0]}: give "
            f"paths as in {frame['path'].iloc[0]}"
        )
    joined = frame[["path"]].merge(listed, on="path", how="left")
    for column in (SOURCE, GROUP):
        frame[column] = joined[column].where(joined[column].notna(), None)
    for column, level, flag in (
        (SOURCE, rules.source_folder, "--source-folder"),
        (GROUP, rules.group_folder, "--group-folder"),
    ):
        if level is not None:
            names = _folder_names(frame["path"], level, flag)
            frame[column] = names.where(names.notna(), frame[column])
    frame[SOURCE] = _matched(frame, rules.source_of)
    frame[SOURCE] = frame[SOURCE].where(frame[SOURCE].notna(), UNNAMED)
    return Origins(frame=frame, unknown_paths=listed.loc[~known, "path"].tolist(), csvs=csvs)


def _read_csvs(folders: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Path, source and group of every row of the CSVs that have one of the two columns, and the names of these CSVs."""
    tables, names = [], []
    for name in CSVS:
        where = next((storage.join(f, name) for f in folders if storage.exists(storage.join(f, name))), None)
        table = _read_csv(where, required=name == CSVS[-1]) if where else None
        if where and table is not None:
            tables.append(table)
            names.append(where)
    empty = pd.DataFrame(columns=["path", SOURCE, GROUP], dtype=object)
    rows = pd.concat([empty, *tables], ignore_index=True)
    by_path = rows.groupby("path", sort=False)[[SOURCE, GROUP]]
    contradicted = (by_path.nunique() > 1).any(axis=1)
    if contradicted.any():
        path = contradicted.index[contradicted][0]
        raise BadData(f"{' and '.join(names)}: {path} has rows that differ in source or group: keep one of them")
    return by_path.first().reset_index(), names


def _read_csv(where: str, *, required: bool) -> pd.DataFrame | None:
    """One CSV; None if it says nothing about sources and groups, which is an error if that is all it is for."""
    try:
        table = pd.read_csv(io.BytesIO(storage.read_bytes(where)), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadData(f"{where} is not a CSV ({error}): repair it, or move it away") from None
    table.columns = table.columns.str.strip()
    if not {SOURCE, GROUP} & set(table.columns):
        if required:
            raise BadData(f"{where} has neither a column 'source' nor a column 'group': expected path and one of them")
        return None
    if "path" not in table.columns:
        raise BadData(f"{where} has no column 'path': expected path, and source or group")
    table = table.reindex(columns=["path", SOURCE, GROUP])
    table["path"] = (
        table["path"].str.replace("\\", "/").str.replace(r"^.*?real_vs_fake/real-vs-fake/|^\./", "", regex=True)
    )
    for column in (SOURCE, GROUP):
        stripped = table[column].astype(object).str.strip()
        table[column] = stripped.where(stripped.notna() & (stripped != ""), None)
    return table


def _folder_names(paths: pd.Series, level: int, flag: str) -> pd.Series:
    """The name of the level-th folder below that of the label; None for an image that lies higher."""
    if level < 1:
        raise BadConfig(f"{flag} is {level}: it must be 1 or more, 1 for the folders right below real and fake")

    def name(path: str) -> str | None:
        *folders, _ = path.split("/")
        label = next(number for number, folder in enumerate(folders) if folder.lower() in LABELS)
        below = folders[label + 1 :]
        return below[level - 1] if len(below) >= level else None

    names = paths.map(name).astype(object)
    if names.isna().all():
        raise BadConfig(f"{flag} is {level}: no image lies that deep, the first is {paths.iloc[0]}")
    return names.where(names.notna(), None)


def _matched(frame: pd.DataFrame, source_of: Sequence[tuple[str, str]]) -> pd.Series:
    """The sources, overruled by the first pattern that matches; each pattern must match an image."""
    sources = frame[SOURCE].copy()
    for pattern, name in reversed(source_of):  # so that the first one has the last word
        matching = frame["path"].map(lambda path, pattern=pattern: fnmatch.fnmatchcase(path, pattern))
        if not matching.any():
            raise BadConfig(
                f"--source-of {pattern}={name}: no image matches the pattern; it is compared with whole paths such as "
                f"{frame['path'].iloc[0]}"
            )
        sources[matching.to_numpy()] = name
    return sources


def counts_by_source(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    """Images of each source, per split and label."""
    table = frame.groupby([SOURCE, "split", "label"]).size()
    return {
        source: {split: {label: int(table.get((source, split, label), 0)) for label in LABELS} for split in SPLITS}
        for source in sorted(frame[SOURCE].unique())
    }


def describe_sources(counts: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The sources and their number of images, in one line."""
    totals = {name: sum(n for split in splits.values() for n in split.values()) for name, splits in counts.items()}
    return ", ".join(f"{name} ({total:,})" for name, total in totals.items())
