"""Lists the images of a source with their labels and splits, taken from its folders and checked against its CSVs.

Three layouts are known, at the source itself or in the subfolder of the Kaggle archive:

* the Kaggle "140k Real and Fake Faces" archive: ``real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}`` with
  ``train.csv``, ``valid.csv``, ``test.csv``;
* a plain ``{train,valid,test}/{real,fake}`` tree;
* a flat ``{real,fake}`` tree, whose splits are drawn later by :mod:`detector_core.data.splits`.

The folders decide; the CSVs must agree with them. No image is opened here.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from pyarrow import fs

from detector_core import storage
from detector_core.data.manifest import GENERATED_MARK
from detector_core.errors import BadConfig, BadData
from detector_core.labels import FAKE, KAGGLE_NUMBER, LABELS, REAL, SPLITS

KAGGLE_FOLDER: Final = "real_vs_fake/real-vs-fake"
_BASES: Final = ("", KAGGLE_FOLDER, "real-vs-fake")
_LABEL_OF: Final = {"real": REAL, "fake": FAKE}
_SPLIT_OF: Final = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif",
)  # fmt: skip
_SUFFIX_EXAMPLES: Final = f"{', '.join(_SUFFIXES[:6])}, ..."
_MAX_EXAMPLES: Final = 20
_EXPECTED: Final = "expected {train,valid,test}/{real,fake} or {real,fake} with images in them"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The images of a source, unopened.

    Attributes:
        source: the folder or URI that was given.
        root: the folder or URI that ``path`` is relative to.
        flat: True if the source has no splits.
        generated: True for generated demo data.
        frame: ``path``, ``label``, ``split`` (None if flat), ``size`` in bytes and ``modified`` in ns, sorted by path.
        ignored: number of files whose names are not those of images.
        csv: differences between the CSVs and the files, see :func:`_check_csvs`; None without CSVs.
    """

    source: str
    root: str
    flat: bool
    generated: bool
    frame: pd.DataFrame
    ignored: int
    csv: dict[str, Any] | None

    @property
    def key(self) -> str:
        """A hash over the root and every file's path, size and time; intermediate results are stored under it."""
        hashed = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        return hashlib.sha256(self.root.encode() + hashed.tobytes()).hexdigest()[:16]

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
    """Lists the images of a source with labels and, if its folders have them, splits.

    Args:
        source: a folder or URI in one of the layouts above.

    Raises:
        BadData: there is no such folder, it has no images, a class is missing, or a CSV contradicts the folders.
    """
    source = storage.absolute(source)
    files = _files(source, f"the folder of a data set, {_EXPECTED}")
    if files.empty:
        raise BadData(f"{source} is empty: {_EXPECTED}")
    base = _base(files["path"])
    if base is None:
        raise BadData(f"{source} has no folders of real and fake images: {_EXPECTED}")
    root = storage.join(source, base) if base else source
    images, ignored = _images(files, base)
    flat = bool(images["split"].isna().all())
    _check_classes(images, root, flat)
    folders = dict.fromkeys([source, root, *_archive_folder(root)])
    return Index(
        source=source,
        root=root,
        flat=flat,
        generated=any(storage.exists(storage.join(folder, GENERATED_MARK)) for folder in folders),
        frame=images,
        ignored=ignored,
        csv=None if flat else _check_csvs(list(folders), images),
    )


def scan_unlabeled(source: str) -> Index:
    """Lists every image below a folder or URI, whatever its subfolders are called; ``label`` and ``split`` are None.

    Raises:
        BadData: there is no such folder, or it has no images.
    """
    source = storage.absolute(source)
    files = _files(source, "a folder of images")
    is_image = files["path"].str.lower().str.endswith(_SUFFIXES)
    if not is_image.any():
        raise BadData(f"{source} has no images in it ({_SUFFIX_EXAMPLES})")
    frame = files[is_image].assign(label=None, split=None).reset_index(drop=True)
    ignored = int((~is_image).sum())
    return Index(source=source, root=source, flat=True, generated=False, frame=frame, ignored=ignored, csv=None)


def _files(source: str, expected: str) -> pd.DataFrame:
    """Every visible file below a folder: path relative to it, size and time of modification.

    Raises:
        BadData: ``source`` is not a folder; ``expected`` ends the sentence.
    """
    filesystem, top = storage.locate(source)
    if filesystem.get_file_info(top).type != fs.FileType.Directory:
        problem = "is not a folder" if storage.exists(source) else "does not exist"
        raise BadData(f"{source} {problem}: give {expected}")
    prefix = len(top.rstrip("/")) + 1
    infos = filesystem.get_file_info(fs.FileSelector(top, recursive=True))
    rows = [(info.path[prefix:], info.size or 0, info.mtime_ns or 0) for info in infos if info.type == fs.FileType.File]
    visible = [row for row in rows if not row[0].startswith(".") and "/." not in row[0]]
    return pd.DataFrame(sorted(visible), columns=["path", "size", "modified"])


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


def _images(files: pd.DataFrame, base: str) -> tuple[pd.DataFrame, int]:
    """The images below ``base`` with label and split, and the number of other files in their folders."""
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
    is_image = below["path"].str.lower().str.endswith(_SUFFIXES)
    columns = ["path", "label", "split", "size", "modified"]
    return below.loc[inside & is_image, columns].reset_index(drop=True), int((inside & ~is_image).sum())


def _check_classes(images: pd.DataFrame, root: str, flat: bool) -> None:
    """Raises BadData if a class has no images, in any of the splits that exist."""
    if images.empty:
        raise BadData(f"{root} has the folders but no images in them ({_SUFFIX_EXAMPLES}): put some in")
    splits = [None] if flat else [split for split in SPLITS if (images["split"] == split).any()]
    for split in splits:
        rows = images if split is None else images[images["split"] == split]
        for label in LABELS:
            if not (rows["label"] == label).any():
                folder = storage.join(root, *([split] if split else []), label)
                raise BadData(f"{folder} has no images, so the class {label!r} is missing: put its images there")


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
