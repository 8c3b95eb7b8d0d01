"""detector_core.data.manifest: a prepared data set that cannot be used is named, with what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from detector_core.data import manifest
from detector_core.data.manifest import DATASET, MANIFEST
from detector_core.errors import BadManifest


def change(dataset: Path, **values: Any) -> None:
    """Fields of its dataset.json, None to take one out."""
    changed = json.loads((dataset / DATASET).read_text()) | values
    (dataset / DATASET).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def rewrite(dataset: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Its manifest, edited."""
    edit(pd.read_parquet(dataset / MANIFEST)).to_parquet(dataset / MANIFEST)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / DATASET).write_text("{"), " cannot be read .*: prepare it again"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"PAR1"), " cannot be read .*: prepare it again"),
        (lambda folder: (folder / DATASET).write_text("1"), " has format 1, .*: prepare it again"),
        (lambda folder: change(folder, format=0), " has format 0, this version reads 1: prepare it again"),
        (lambda folder: change(folder, root=None), f"/{DATASET} has no 'root': prepare it again"),
        (
            lambda folder: rewrite(folder, lambda frame: frame.drop(columns="phash")),
            f"/{MANIFEST} has no column 'phash': prepare it again",
        ),
        (
            lambda folder: rewrite(folder, lambda frame: frame.iloc[1:]),
            f": {MANIFEST} and {DATASET} do not belong together: prepare it again",
        ),
        (
            lambda folder: (folder / MANIFEST).unlink(),
            r" is not a prepared data set \(.*is missing\): .*python -m jobs\.prepare",
        ),
    ],
    ids=["torn JSON", "torn table", "no table", "format", "field", "column", "rows", "gone"],
)
def test_a_data_set_that_cannot_be_used_is_named(
    writable_dataset: Path, damage: Callable[[Path], object], says: str
) -> None:
    assert len(manifest.load(str(writable_dataset)).frame) == 32
    damage(writable_dataset)
    with pytest.raises(BadManifest, match=f"{writable_dataset}{says}"):
        manifest.load(str(writable_dataset))
