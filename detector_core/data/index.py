"""Which images a source holds: their labels and splits, from its folders, checked against its CSVs.

Three layouts are known, below the source or at it:

* the Kaggle "140k Real and Fake Faces" archive: ``real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}`` with
  ``train.csv``, ``valid.csv``, ``test.csv``;
* a plain ``{train,valid,test}/{real,fake}`` tree;
* a flat ``{real,fake}`` tree, whose splits are drawn later by :func:`draw_splits`.

Folders decide; CSVs must agree with them. No image is opened here.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
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
_SHOWN: Final = 20
_EXPECTED: Final = "expected {train,valid,test}/{real,fake} or {real,fake} with images in them"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The images of a source, unopened.

    Attributes:
        source: the folder or URI that was asked for.
        root: the folder or URI that ``path`` is relative to.
        flat: True where the source has no splits.
        generated: True for generated demo data.
        frame: ``path``, ``label``, ``split`` (None where flat), ``size`` in bytes, ``modified`` in ns; by path.
        ignored: files that are not images by their name.
        csv: what the CSVs say beside the files, None without CSVs.
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
        """Changes when a file of the source comes, goes or changes: what was found out under one key stays true."""
        hashed = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        return hashlib.sha256(self.root.encode() + hashed.tobytes()).hexdigest()[:16]

    def sample(self, count: int, seed: int) -> "Index":
        """At most ``count`` images of each split and class, drawn by ``seed``. Raises BadConfig."""
        if count < 1:
            raise BadConfig(f"--sample {count}: take 1 image of each split and class, or more")
        shuffled = self.frame.sample(frac=1, random_state=seed)
        kept = shuffled.groupby(["split", "label"], dropna=False).head(count).sort_values("path")
        return dataclasses.replace(self, frame=kept.reset_index(drop=True))


def scan(source: str) -> Index:
    """Lists the images of a source.

    Raises:
        BadData: no such folder, nothing in it, a class missing, or a CSV that contradicts the folders.
    """
    source = storage.absolute(source)
    filesystem, top = storage.locate(source)
    if filesystem.get_file_info(top).type != fs.FileType.Directory:
        found = "is not a folder" if storage.exists(source) else "does not exist"
        raise BadData(f"{source} {found}: give the folder of a data set, {_EXPECTED}")
    files = _files(filesystem, top)
    if files.empty:
        raise BadData(f"{source} is empty: {_EXPECTED}")
    base = _base(files["path"])
    if base is None:
        raise BadData(f"{source} has no folders of real and fake images: {_EXPECTED}")
    root = storage.join(source, base) if base else source
    images, ignored = _images(files, base)
    flat = bool(images["split"].isna().all())
    _check_classes(images, root, flat)
    folders = dict.fromkeys([source, root, *_above_kaggle(root)])
    return Index(
        source=source,
        root=root,
        flat=flat,
        generated=any(storage.exists(storage.join(folder, GENERATED_MARK)) for folder in folders),
        frame=images,
        ignored=ignored,
        csv=None if flat else _check_csvs(list(folders), images),
    )


def scan_unlabelled(source: str) -> Index:
    """Lists every image below a source, whatever its folders are called; ``label`` and ``split`` are None.

    Raises:
        BadData: no such folder, or no image in it.
    """
    source = storage.absolute(source)
    filesystem, top = storage.locate(source)
    if filesystem.get_file_info(top).type != fs.FileType.Directory:
        raise BadData(
            f"{source} {'is not a folder' if storage.exists(source) else 'does not exist'}: give one of images"
        )
    files = _files(filesystem, top)
    named = files["path"].str.lower().str.endswith(_SUFFIXES)
    if not named.any():
        raise BadData(f"{source} has no images in it ({', '.join(_SUFFIXES[:6])}, ...)")
    frame = files[named].assign(label=None, split=None).reset_index(drop=True)
    ignored = int((~named).sum())
    return Index(source=source, root=source, flat=True, generated=False, frame=frame, ignored=ignored, csv=None)


def draw_splits(
    labels: Sequence[str], group_N: NDArray[np.int64], *, ratio: Sequence[int], seed: int
) -> NDArray[np.object_]:
    """Splits for images that have none: shape (N,), names of :data:`SPLITS`.

    Each label is divided by ``ratio``, as nearly as whole groups allow; a group (near-duplicates) stays in one split.

    Raises:
        BadConfig: a ratio that is not three whole numbers above 0.
        BadData: too few images for every split to have both labels.
    """
    if len(ratio) != len(SPLITS) or min(ratio) < 1:
        raise BadConfig(f"the split ratio is {':'.join(map(str, ratio))}: give train:valid:test as in 5:1:1, each > 0")
    label_N = np.array([LABELS.index(label) for label in labels])
    number_N = np.unique(group_N, return_inverse=True)[1]
    members = np.zeros((number_N.max() + 1, len(LABELS)), dtype=np.int64)
    np.add.at(members, (number_N, label_N), 1)
    missing = np.outer(members.sum(axis=0), np.array(ratio) / sum(ratio))
    order = np.random.default_rng(seed).permutation(len(members))
    # Large groups first: single images then even out what they leave.
    order = order[np.argsort(-members[order].sum(axis=1), kind="stable")]
    split_of = np.empty(len(members), dtype=np.int64)
    for number in order:
        split_of[number] = (members[number] @ missing).argmax()
        missing[:, split_of[number]] -= members[number]
    split_N = split_of[number_N]
    for split, name in enumerate(SPLITS):
        for label, label_name in enumerate(LABELS):
            if not ((split_N == split) & (label_N == label)).any():
                count = int((label_N == label).sum())
                raise BadData(f"{count} {label_name} images are too few to give the {name} split one: add more")
    return np.array(SPLITS, dtype=object)[split_N]


def _files(filesystem: fs.FileSystem, top: str) -> pd.DataFrame:
    """Every visible file below a folder: path relative to it, size and time."""
    prefix = len(top.rstrip("/")) + 1
    found = filesystem.get_file_info(fs.FileSelector(top, recursive=True))
    rows = [(info.path[prefix:], info.size or 0, info.mtime_ns or 0) for info in found if info.type == fs.FileType.File]
    visible = [row for row in rows if not row[0].startswith(".") and "/." not in row[0]]
    return pd.DataFrame(sorted(visible), columns=["path", "size", "modified"])


def _base(paths: pd.Series) -> str | None:
    """The first known place, relative to the source, below which there are splits or labels."""
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
    split, in_split = parts[0].map(_SPLIT_OF), parts[1].map(_LABEL_OF)
    in_tree = split.notna() & in_split.notna() & parts[2].notna()
    if in_tree.any():
        below["label"], below["split"], inside = in_split, split, in_tree
    else:
        below["label"], below["split"] = parts[0].map(_LABEL_OF), None
        inside = below["label"].notna() & parts[1].notna()
    named = below["path"].str.lower().str.endswith(_SUFFIXES)
    columns = ["path", "label", "split", "size", "modified"]
    return below.loc[inside & named, columns].reset_index(drop=True), int((inside & ~named).sum())


def _check_classes(images: pd.DataFrame, root: str, flat: bool) -> None:
    if images.empty:
        raise BadData(f"{root} has the folders but no images in them ({', '.join(_SUFFIXES[:6])}, ...): put some in")
    splits = [None] if flat else [split for split in SPLITS if (images["split"] == split).any()]
    for split in splits:
        here = images if split is None else images[images["split"] == split]
        for label in LABELS:
            if not (here["label"] == label).any():
                folder = storage.join(root, *([split] if split else []), label)
                raise BadData(f"{folder} has no images, so the class {label!r} is missing: put its images there")


def _above_kaggle(root: str) -> list[str]:
    """Where the Kaggle archive keeps its CSVs, when its inner folder was given."""
    return [root.removesuffix(f"/{KAGGLE_FOLDER}")] if root.endswith(f"/{KAGGLE_FOLDER}") else []


def _check_csvs(folders: Sequence[str], images: pd.DataFrame) -> dict[str, Any] | None:
    """Compares the CSVs with the files.

    Raises:
        BadData: a CSV without the known columns, or whose labels contradict the folders or themselves.
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
        "rows_without_file": _listing(listed[~listed.isin(files)]),
        "files_without_row": _listing(files[covered & ~files.isin(listed)]),
        "repeated_rows": len(rows) - len(listed),
    }


def _read_csv(where: str) -> pd.DataFrame:
    """One CSV as columns ``path`` (relative to the image folder) and ``label`` (its name), checked row by row."""
    try:
        table = pd.read_csv(io.BytesIO(storage.read_bytes(where)), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadData(f"{where} is not a CSV ({error}): repair it, or move it away to go by the folders") from None
    for column in ("path", "label"):
        if column not in table.columns:
            raise BadData(f"{where} has no column {column!r}: expected path, label (1 = real, 0 = fake) and label_str")
    paths = table["path"].str.replace("\\", "/").str.replace(rf"^.*?{KAGGLE_FOLDER}/|^\./", "", regex=True)
    says = table["label"].map({str(number): label for label, number in KAGGLE_NUMBER.items()}).fillna("nothing")
    rivals = {"its folder": paths.str.lower().str.split("/").str[-2].map(_LABEL_OF)}
    if "label_str" in table.columns:
        rivals["label_str"] = table["label_str"].str.lower().map(_LABEL_OF)
    for rival, label in rivals.items():
        wrong = np.flatnonzero(label.notna() & (says != label))
        if len(wrong):
            row = int(wrong[0])
            share = "every row: this copy has the numbers flipped" if len(wrong) == len(table) else f"{len(wrong)} rows"
            raise BadData(
                f"{where}, row {row + 1} ({paths[row]}): label {table['label'][row]} means {says[row]}, but {rival} "
                f"says {label[row]} ({share}): 1 must be real and 0 fake; correct the CSV, or move it away to go by "
                f"the folders alone"
            )
    return pd.DataFrame({"path": paths, "label": says})


def _listing(paths: pd.Series) -> dict[str, Any]:
    return {"count": len(paths), "examples": paths.head(_SHOWN).tolist()}
