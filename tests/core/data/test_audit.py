"""detector_core.data.audit: counts, duplicates and shortcuts."""

import json

import numpy as np
import pandas as pd
import pytest

from detector_core.data.audit import audit, duplicates, groups_across_splits, shortcuts, summary
from detector_core.data.index import Index
from detector_core.data.sources import Origins
from detector_core.labels import SPLITS


def rows(count: int = 120) -> pd.DataFrame:
    """A data set without shortcuts: the properties of both classes have the same distributions."""
    draw = np.random.default_rng(0)
    label = np.array(["real", "fake"])[np.arange(count) % 2]
    return pd.DataFrame(
        {
            "path": [f"{number:03}.jpg" for number in range(count)],
            "label": label,
            "source": "unnamed",
            "group": None,
            "split": np.array(SPLITS)[np.arange(count) // 2 % 3],
            "problem": None,
            "sha256": [f"{number:064x}" for number in range(count)],
            "width": 256,
            "height": 256,
            "bytes": draw.integers(9_000, 12_000, count),
            "format": "JPEG RGB",
            "jpeg_quality": pd.array([75] * count, dtype="Int64"),
            "jpeg_tables": "0c96e476",
            "chroma": "4:2:0",
            "metadata_bytes": 0,
            "brightness": draw.normal(120, 20, count),
            "phash": "00",
        }
    )


def source(frame: pd.DataFrame, **changes: object) -> Index:
    left_out = pd.DataFrame({"path": [".a.jpg", "b/.c.jpg"], "reason": "hidden: its name begins with a dot"})
    fields = {"source": "s", "root": "s", "flat": False, "generated": False, "left_out": left_out, "csv": None}
    return Index(frame=frame, **{**fields, **changes})


def run_audit(frame: pd.DataFrame, group_N: np.ndarray | None = None, unknown: int = 0, **changes: object) -> dict:
    usable = int(frame["problem"].isna().sum())
    origins = Origins(frame=frame[["path", "source", "group"]], unknown_paths=["gone.jpg"] * unknown, csvs=[])
    return audit(source(frame, **changes), frame, np.arange(usable) if group_N is None else group_N, origins)


def separation(frame: pd.DataFrame, name: str) -> dict:
    return next(row for row in shortcuts(frame) if row["property"] == name)


def test_a_data_set_without_shortcuts_has_no_warnings():
    result = run_audit(rows())
    assert result["warnings"] == []
    assert result["images"] == 120
    assert result["counts"] == {split: {"real": 20, "fake": 20} for split in SPLITS}
    assert result["table_1_of_the_paper"]["train"] == {"real": 50_000, "fake": 50_000}
    constant = {"width", "height", "format", "jpeg_quality", "jpeg_tables", "chroma", "metadata_bytes"}
    assert {row["property"] for row in result["shortcuts"] if row["auc"] == 0.5} == constant
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("name", "of_real", "of_fake", "auc"),
    [
        ("bytes", 20_000, 8_000, 1.0),
        ("bytes", 8_000, 20_000, 0.0),
        ("width", 1024, 256, 1.0),
        ("brightness", 90.0, 140.0, 0.0),
        ("jpeg_quality", 95, 75, 1.0),
        ("metadata_bytes", 700, 0, 1.0),
        ("jpeg_tables", "aaaaaaaa", "bbbbbbbb", 1.0),
        ("chroma", "4:4:4", "4:2:0", 1.0),
        ("format", "JPEG RGB", "PNG RGB", 1.0),
    ],
)
def test_each_shortcut_is_detected_and_gets_a_warning(name: str, of_real: object, of_fake: object, auc: float):
    frame = rows()
    frame[name] = np.where(frame["label"] == "real", of_real, of_fake)
    result = run_audit(frame)
    assert separation(frame, name) == {"property": name, "auc": auc, "separation": 1.0}
    assert result["shortcuts"][0]["property"] == name
    (warning,) = result["warnings"]
    assert warning.startswith(f"SHORTCUT: {name} alone separates real from fake")


def test_a_missing_jpeg_quality_is_a_shortcut_too():
    frame = rows()
    frame.loc[frame["label"] == "fake", "jpeg_quality"] = pd.NA
    assert separation(frame, "jpeg_quality")["auc"] == 1.0


def test_tables_that_differ_in_every_file_are_not_a_shortcut():
    frame = rows(2000)
    frame["jpeg_tables"] = [f"{number:08x}" for number in range(2000)]
    assert separation(frame, "jpeg_tables")["auc"] == 0.5


def test_one_class_only_has_no_shortcuts_and_a_warning():
    frame = rows()
    frame = frame[frame["label"] == "fake"].assign(split="test")
    result = run_audit(frame)
    assert result["shortcuts"] == []
    first, *others = result["warnings"]
    assert first.startswith("there are no real images: this data set can evaluate a model, but not train one")
    assert [warning.partition(":")[0] for warning in others] == [f"there are no {split} images" for split in SPLITS[:2]]
    assert "one property" not in summary(result, "fakes")


def test_duplicates_within_and_across_splits_and_labels():
    frame = rows(12)
    group_N = np.arange(12)
    group_N[[0, 6]] = 0  # both real, both train
    group_N[[2, 4]] = 2  # both real, valid and test
    group_N[[7, 9, 11]] = 7  # all fake, every split
    group_N[[1, 8]] = 1  # fake in train, real in valid
    result = duplicates(frame, group_N)
    assert {name: result[name] for name in ("groups", "images", "across_splits", "across_labels")} == {
        "groups": 4,
        "images": 9,
        "across_splits": 3,
        "across_labels": 1,
    }
    assert result["examples"][0] == ["007.jpg", "009.jpg", "011.jpg"]
    assert result["examples"][-1] == ["000.jpg", "006.jpg"]


def test_identical_files_with_both_labels_and_near_duplicates_across_splits_get_warnings():
    frame = rows(12)
    frame.loc[1, "sha256"] = frame.loc[0, "sha256"]
    group_N = np.arange(12)
    group_N[[2, 4]] = 2
    result = run_audit(frame, group_N)
    assert result["duplicates"]["exact"]["across_labels"] == 1
    assert groups_across_splits(result) == 1
    text = " | ".join(result["warnings"])
    assert "identical files labeled both real and fake: 1" in text
    assert "near-identical images across splits: 1" in text


def test_a_torn_group_is_reported_as_loudly_as_a_duplicate():
    frame = rows(12)
    frame.loc[[0, 2, 7, 9], "group"] = ["anna", "anna", "bert", "bert"]  # anna: train and valid; bert: train and valid
    frame.loc[[1, 6], "group"] = "carl"  # train alone
    frame["source"] = ["camera", "stylegan3"] * 6
    result = run_audit(frame, unknown=2)
    assert {name: result["groups"][name] for name in ("named", "images_without", "across_splits")} == {
        "named": 3,
        "images_without": 6,
        "across_splits": 2,
    }
    assert result["groups"]["examples"][:2] == [["000.jpg", "002.jpg"], ["007.jpg", "009.jpg"]]
    assert result["sources"]["stylegan3"]["train"] == {"real": 0, "fake": 2}
    assert [warning.partition(" (")[0] for warning in result["warnings"]] == [
        "groups",
        "images without a group, while others have one: 6",
        "rows of sources or groups without a file: 2",
    ]
    assert "across splits: 2 (test metrics will be too optimistic" in result["warnings"][0]
    text = summary(result, "people")
    assert "sources: camera (6), stylegan3 (6)" in text
    assert "groups: 3, 2 across splits" in text


def test_unreadable_images_are_listed_with_the_reason_and_not_counted():
    frame = rows(12)
    frame.loc[3, "problem"] = "damaged image: truncated"
    frame.loc[3, ["bytes", "width", "height", "brightness", "sha256", "phash"]] = None
    result = run_audit(frame)
    assert result["unreadable"] == {
        "count": 1,
        "reasons": {"damaged image": 1},
        "files": [{"path": "003.jpg", "reason": "damaged image: truncated"}],
    }
    assert result["left_out"]["reasons"] == {"hidden": 2}
    assert [file["path"] for file in result["left_out"]["files"]] == [".a.jpg", "b/.c.jpg"]
    assert result["counts"]["valid"] == {"real": 2, "fake": 1}
    assert any("cannot be used: 1" in warning for warning in result["warnings"])


def test_csv_differences_and_empty_splits_get_warnings():
    frame = rows(12)
    frame["split"] = "train"
    csv = {
        "rows": {"train.csv": 14},
        "rows_without_file": {"count": 2, "examples": ["x", "y"]},
        "files_without_row": {"count": 1, "examples": ["z"]},
        "repeated_rows": 3,
    }
    text = " | ".join(run_audit(frame, csv=csv)["warnings"])
    for part in ("without a file: 2", "no CSV lists: 1", "repeat a path: 3", "no valid images", "no test images"):
        assert part in text


def test_the_summary_has_table_i_the_separations_and_the_warnings():
    frame = rows()
    frame["bytes"] = np.where(frame["label"] == "real", 2, 1)
    text = summary(run_audit(frame), "faces -> dataset")
    assert text.startswith("faces -> dataset")
    for part in (
        *("50,000 + 50,000", "unreadable: 0", "other files, left out: 2: hidden (2)"),
        *("bytes 1.000", "WARNING: SHORTCUT: bytes"),
    ):
        assert part in text
