"""Lists the images of a source with their labels and splits, taken from its folders and checked against its CSVs.

Three layouts are known, at the source itself or in the subfolder of the Kaggle archive:

* the Kaggle "140k Real and Fake Faces" archive: ``real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}`` with
  ``train.csv``, ``valid.csv``, ``test.csv``;
* a plain ``{train,valid,test}/{real,fake}`` tree;
* a flat ``{real,fake}`` tree, whose splits are drawn later by :mod:`detector_core.data.splits`.

A test split may have one class only, such as the output of a new generator; so may a flat tree, which then is a test
split. The folders decide; the CSVs must agree with them. No file is opened here: whether it is an image is told by its
bytes, not by its name.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from detector_core import storage
from detector_core.data.manifest import GENERATED_MARK
from detector_core.data.sources import CSVS, Origins, SourceRules, find_origins
from detector_core.errors import BadConfig, BadData
from detector_core.labels import FAKE, KAGGLE_NUMBER, LABELS, REAL, SPLITS

KAGGLE_FOLDER: Final = "real_vs_fake/real-vs-fake"
_BASES: Final = ("", KAGGLE_FOLDER, "real-vs-fake")
_LABEL_OF: Final = {"real": REAL, "fake": FAKE}
_SPLIT_OF: Final = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_ABOUT_THE_DATA: Final = (*CSVS, GENERATED_MARK)
"""Files that say something about the images, and are read."""
_MAX_EXAMPLES: Final = 20
_EXPECTED: Final = "expected {train,valid,test}/{real,fake} or {real,fake} with images in them"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The files of a source that may be images, unopened.

    Attributes:
        source: the folder or URI that was given.
        root: the folder or URI that ``path`` is relative to.
        flat: True if the source has no splits.
        generated: True for generated demo data.
        frame: ``path``, ``label``, ``split`` (None if flat), ``size`` in bytes and ``modified`` in ns, sorted by path.
        left_out: ``path`` and ``reason`` of every other file below ``source``, relative to it.
        csv: differences between the CSVs and the files, see :func:`_check_csvs`; None without CSVs.
    """

    source: str
    root: str
    flat: bool
    generated: bool
    frame: pd.DataFrame
    left_out: pd.DataFrame
    csv: dict[str, Any] | None

    @property
    def key(self) -> str:
        """A hash over the root and every file's path, size and time; intermediate results are stored under it."""
        hashed = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        return hashlib.sha256(self.root.encode() + hashed.tobytes()).hexdigest()[:16]

    def origins(self, rules: SourceRules) -> Origins:
        """Source and group of each image, see :func:`detector_core.data.sources.find_origins`."""
        folders = dict.fromkeys([self.source, self.root, *_archive_folder(self.root)])
        return find_origins(self.frame["path"], list(folders), rules)

    def sample(self, count: int, seed: int) -> "Index":
        """Draws at most ``count`` images of each split and class.

        Raises:
            BadConfig: the count is below 1.
        """
        if count < 1:
            raise BadConfig(f"--sample is {count}: it must be 1 or more, the number of images of each split and class")
        shuffled = self.frame.sample(frac=1, random_state=seed)
        kept = shuffled.groupby(["split", "label"], dropna=False).head(count).sort_values("path")
        return dataclasses.replace(self, frame=kept.reset_index(drop=True))


def scan(source: str) -> Index:
    """Lists the files in the folders of a source with labels and, if its folders have them, splits.

    Args:
        source: a folder or URI in one of the layouts above.

    Raises:
        BadData: there is no such folder, it is empty, a class is missing, or a CSV contradicts the folders.
    """
    source = storage.absolute(source)
    files, left_out = _files(source, f"the folder of a data set, {_EXPECTED}")
    if files.empty:
        raise BadData(f"{source} is empty: {_EXPECTED}")
    base = _base(files["path"])
    if base is None:
        raise BadData(f"{source} has no folders of real and fake images: {_EXPECTED}")
    root = storage.join(source, base) if base else source
    images, outside = _images(files, base)
    flat = bool(images["split"].isna().all())
    _check_classes(images, root, flat)
    folders = dict.fromkeys([source, root, *_archive_folder(root)])
    outside = outside[~outside["path"].str.split("/").str[-1].isin(_ABOUT_THE_DATA)]
    outside = outside[["path"]].assign(reason="not in a folder of real or fake images")
    return Index(
        source=source,
        root=root,
        flat=flat,
        generated=any(storage.exists(storage.join(folder, GENERATED_MARK)) for folder in folders),
        frame=images,
        left_out=pd.concat([left_out, outside]).sort_values("path", ignore_index=True),
        csv=None if flat else _check_csvs(list(folders), images),
    )


def scan_unlabeled(source: str) -> Index:
    """Lists every file below a folder or URI, whatever its subfolders are called; ``label`` and ``split`` are None.

    Raises:
        BadData: there is no such folder, or it has no files.
    """
    source = storage.absolute(source)
    files, left_out = _files(source, "a folder of images")
    if files.empty:
        raise no_images(source, left_out)
    frame = files.assign(label=None, split=None)
    return Index(source=source, root=source, flat=True, generated=False, frame=frame, left_out=left_out, csv=None)


def no_images(source: str, left_out: pd.DataFrame) -> BadData:
    """The error for a folder without images, which says why the first of its files, if there are any, is none."""
    first = left_out.head(1).itertuples()
    why = "".join(f": {file.path} is {file.reason}" for file in first)
    return BadData(f"{source} has no images in it{why}")


def _files(source: str, expected: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The files below a folder, and those that are left out. Raises BadData, see :func:`storage.list_files`."""
    listing = storage.list_files(source, expected)
    return (
        pd.DataFrame(listing.files, columns=["path", "size", "modified"]),
        pd.DataFrame(listing.left_out, columns=["path", "reason"], dtype="str"),
    )


def _base(paths: pd.Series) -> str | None:
    """The first known subfolder of the source (or "") that has splits or labels in it; None if there is none."""
    for base in _BASES:
        prefix = f"{base}/" if base else ""
        below = paths[paths.str.startswith(prefix)].str.slice(len(prefix)).str.lower()
        parts = below.str.split("/", n=2, expand=True).reindex(columns=range(3))
        tree = parts[0].isin(_SPLIT_OF) & parts[1].isin(_LABEL_OF) & parts[2].notna()
        flat = parts[0].isin(_LABEL_OF) & parts[1].notna()
        if tree.any() or flat.any():
            return base
    return None


def _images(files: pd.DataFrame, base: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The files in the folders of a label below ``base``, with label and split, and all other files."""
    prefix = f"{base}/" if base else ""
    below = files[files["path"].str.startswith(prefix)].copy()
    below["path"] = below["path"].str.slice(len(prefix))
    parts = below["path"].str.lower().str.split("/", n=2, expand=True).reindex(columns=range(3))
    split, label_in_split = parts[0].map(_SPLIT_OF), parts[1].map(_LABEL_OF)
    in_tree = split.notna() & label_in_split.notna() & parts[2].notna()
    if in_tree.any():
        below["label"], below["split"], inside = label_in_split, split, in_tree
    else:
        below["label"], below["split"] = parts[0].map(_LABEL_OF), None
        inside = below["label"].notna() & parts[1].notna()
    columns = ["path", "label", "split", "size", "modified"]
    return below.loc[inside, columns].reset_index(drop=True), files.drop(below.index[inside])


def _check_classes(images: pd.DataFrame, root: str, flat: bool) -> None:
    """Raises BadData if a class has no files in a split that trains or chooses a model."""
    splits = [] if flat else [split for split in SPLITS if split != "test" and (images["split"] == split).any()]
    for split in splits:
        for label in LABELS:
            if not ((images["split"] == split) & (images["label"] == label)).any():
                folder = storage.join(root, split, label)
                raise BadData(
                    f"{folder} has no images, so the class {label!r} is missing: put its images there (a test split "
                    f"may have one class only)"
                )


def _archive_folder(root: str) -> list[str]:
    """The folder with the Kaggle archive's CSVs if ``root`` is its inner folder, else an empty list."""
    return [root.removesuffix(f"/{KAGGLE_FOLDER}")] if root.endswith(f"/{KAGGLE_FOLDER}") else []


def _check_csvs(folders: Sequence[str], images: pd.DataFrame) -> dict[str, Any] | None:
    """Compares the CSVs in ``folders`` with the files.

    Returns:
        Rows per CSV, rows without a file, files without a row and repeated rows; None without CSVs.

    Raises:
        BadData: a CSV lacks the known columns, or its labels contradict the folders or each other.
    """
    tables = {}
    for split in SPLITS:
        name = f"{split}.csv"
        where = next((storage.join(f, name) for f in folders if storage.exists(storage.join(f, name))), None)
        if where is not None:
            tables[name] = _read_csv(where)
    if not tables:
        return None
    rows = pd.concat(tables.values(), ignore_index=True)
    files, listed = images["path"], rows["path"].drop_duplicates()
    covered = images["split"].isin([name.removesuffix(".csv") for name in tables])
    return {
        "rows": {name: len(table) for name, table in tables.items()},
        "rows_without_file": _examples(listed[~listed.isin(files)]),
        "files_without_row": _examples(files[covered & ~files.isin(listed)]),
        "repeated_rows": len(rows) - len(listed),
    }


def _read_csv(where: str) -> pd.DataFrame:
    """One CSV as columns ``path`` (relative to the image folder) and ``label`` (its name), checked row by row."""
    try:
        table = pd.read_csv(io.BytesIO(storage.read_bytes(where)), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadData(f"{where} is not a CSV ({error}): repair it, or move it away to use the folders alone") from None
    for column in ("path", "label"):
        if column not in table.columns:
            raise BadData(f"{where} has no column {column!r}: expected path, label (1 = real, 0 = fake) and label_str")
    paths = table["path"].str.replace("\\", "/").str.replace(rf"^.*?{KAGGLE_FOLDER}/|^\./", "", regex=True)
    labels = table["label"].map({str(number): label for label, number in KAGGLE_NUMBER.items()}).fillna("nothing")
    others = {"its folder": paths.str.lower().str.split("/").str[-2].map(_LABEL_OF)}
    if "label_str" in table.columns:
        others["label_str"] = table["label_str"].str.lower().map(_LABEL_OF)
    for other, other_labels in others.items():
        wrong = np.flatnonzero(other_labels.notna() & (labels != other_labels))
        if len(wrong):
            row = int(wrong[0])
            extent = (
                "every row: this copy has the numbers flipped" if len(wrong) == len(table) else f"{len(wrong)} rows"
            )
            raise BadData(
                f"{where}, row {row + 1} ({paths[row]}): label {table['label'][row]} means {labels[row]}, but {other} "
                f"says {other_labels[row]} ({extent}): 1 must be real and 0 fake; correct the CSV, or move it away to "
                f"use the folders alone"
            )
    return pd.DataFrame({"path": paths, "label": labels})


def _examples(paths: pd.Series) -> dict[str, Any]:
    return {"count": len(paths), "examples": paths.head(_MAX_EXAMPLES).tolist()}
