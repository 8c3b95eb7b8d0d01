"""detector_core.data.manifest: errors name a data set that cannot be used, and say what to do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from detector_core.data import manifest
from detector_core.data.manifest import DATASET, MANIFEST
from detector_core.errors import BadConfig, BadManifest


def edit_json(dataset: Path, **values: Any) -> None:
    """Changes fields of dataset.json; None removes one."""
    changed = json.loads((dataset / DATASET).read_text()) | values
    (dataset / DATASET).write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def edit_manifest(dataset: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Changes the manifest."""
    edit(pd.read_parquet(dataset / MANIFEST)).to_parquet(dataset / MANIFEST)


def test_the_terms_of_the_images_stay_with_the_data_set(tiny_dataset: Path, tmp_path: Path) -> None:
    assert "terms" not in manifest.load(str(tiny_dataset)).describe()
    frame = manifest.load(str(tiny_dataset)).frame
    saved = manifest.save(
        str(tmp_path), frame, root="images", name="n", generated=False, audit={}, terms="not for sale"
    )
    assert saved.describe() == manifest.load(str(tmp_path)).describe()
    assert saved.describe()["terms"] == "not for sale"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / DATASET).write_text("{"), " cannot be read .*: prepare it again"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"PAR1"), " cannot be read .*: prepare it again"),
        (lambda folder: (folder / DATASET).write_text("1"), " has format 1, .*: prepare it again"),
        (lambda folder: edit_json(folder, format=0), " has format 0, this version reads 1: prepare it again"),
        (lambda folder: edit_json(folder, root=None), f"/{DATASET} has no field 'root': prepare it again"),
        (
            lambda folder: edit_manifest(folder, lambda frame: frame.drop(columns="phash")),
            f"/{MANIFEST} has no column 'phash': prepare it again",
        ),
        (
            lambda folder: edit_manifest(folder, lambda frame: frame.iloc[1:]),
            f": {MANIFEST} and {DATASET} do not belong together: prepare it again",
        ),
        (
            lambda folder: (folder / MANIFEST).unlink(),
            r" is not a prepared data set \(.*is missing\): .*python -m jobs\.prepare",
        ),
    ],
    ids=[
        "broken JSON",
        "broken manifest",
        "JSON that is not an object",
        "format",
        "field",
        "column",
        "rows",
        "missing",
    ],
)
def test_the_error_for_a_damaged_data_set_names_it_and_says_what_to_do(
    writable_dataset: Path, damage: Callable[[Path], object], message: str
) -> None:
    assert len(manifest.load(str(writable_dataset)).frame) == 32
    damage(writable_dataset)
    with pytest.raises(BadManifest, match=f"{writable_dataset}{message}"):
        manifest.load(str(writable_dataset))


def test_the_warnings_of_the_audit_are_read_with_the_data_set(writable_dataset: Path) -> None:
    assert manifest.load(str(writable_dataset)).warnings == ()
    audit = writable_dataset / "audit.json"
    audit.write_text(json.dumps({"warnings": ["one", "two"]}))
    assert manifest.load(str(writable_dataset)).warnings == ("one", "two")
    audit.write_text("{")
    with pytest.raises(BadManifest, match=r"audit\.json cannot be read .*: prepare the data set again"):
        manifest.load(str(writable_dataset))
    audit.unlink()
    assert manifest.load(str(writable_dataset)).warnings == ()


def test_a_manifest_without_sources_has_one_and_its_fingerprint_does_not_depend_on_them(
    writable_dataset: Path,
) -> None:
    before = manifest.load(str(writable_dataset))
    edit_manifest(writable_dataset, lambda frame: frame.drop(columns=["source", "group"]))
    old = manifest.load(str(writable_dataset))
    assert set(old.frame["source"]) == {"unnamed"}
    assert old.frame["group"].isna().all()
    assert old.fingerprint == before.fingerprint
    assert "left_out" not in old.describe()


def test_sources_can_be_left_out_once(tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    frame = data.frame.assign(source=[f"camera {number % 2}" for number in range(len(data.frame))])
    data = dataclasses.replace(data, frame=frame)
    less = data.without(["camera 1"])
    assert set(less.frame["source"]) == {"camera 0"}
    assert (less.left_out, less.fingerprint) == (("camera 1",), data.fingerprint)
    assert less.without(["camera 1"]) is less
    with pytest.raises(BadConfig, match=r"--leave-out phone: the sources of tiny are camera 0, camera 1"):
        data.without(["phone"])
    with pytest.raises(BadConfig, match=r"--leave-out camera 0, camera 1: no real image is left in the train split"):
        data.without(["camera 0", "camera 1"])
