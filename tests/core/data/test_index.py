"""detector_core.data.index: labels and splits from folders, checked against CSVs."""

from pathlib import Path

import pandas as pd
import pytest

from detector_core.data.index import KAGGLE_FOLDER, scan, scan_unlabeled
from detector_core.data.manifest import GENERATED_MARK
from detector_core.errors import BadConfig, BadData
from detector_core.labels import LABELS, SPLITS


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def make_archive(root: Path) -> Path:
    """The layout of the archive with two files per split and class, and its CSVs."""
    for split in SPLITS:
        paths = [f"{split}/{label}/{number}.jpg" for label in sorted(LABELS) for number in range(2)]
        touch(root / KAGGLE_FOLDER, *paths)
        labels = [path.split("/")[1] for path in paths]
        pd.DataFrame(
            {
                "original_path": [Path(path).name for path in paths],
                "id": [Path(path).stem for path in paths],
                "label": [int(label == "real") for label in labels],
                "label_str": labels,
                "path": paths,
            }
        ).to_csv(root / f"{split}.csv")
    return root


def change_csv(file: Path, **columns: object) -> None:
    table = pd.read_csv(file, index_col=0)
    for name, values in columns.items():
        table[name] = values(table[name]) if callable(values) else values
    table.to_csv(file)


def test_the_kaggle_archive(tmp_path: Path):
    index = scan(str(make_archive(tmp_path)))
    assert index.root == f"{tmp_path}/{KAGGLE_FOLDER}"
    assert not index.flat
    assert not index.generated
    assert index.frame.groupby(["split", "label"]).size().tolist() == [2] * 6
    assert index.frame["path"].is_monotonic_increasing
    assert index.csv == {
        "rows": {"train.csv": 4, "valid.csv": 4, "test.csv": 4},
        "rows_without_file": {"count": 0, "examples": []},
        "files_without_row": {"count": 0, "examples": []},
        "repeated_rows": 0,
    }


def test_the_inner_folder_of_the_archive_is_the_same_data_set(tmp_path: Path):
    outer, inner = scan(str(make_archive(tmp_path))), scan(str(tmp_path / KAGGLE_FOLDER))
    assert inner.key == outer.key
    assert inner.csv == outer.csv


def test_a_file_uri_is_the_same_as_a_path(tmp_path: Path):
    make_archive(tmp_path)
    assert scan(tmp_path.as_uri()).frame.equals(scan(str(tmp_path)).frame)


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "Valid"])
def test_a_plain_tree_with_any_name_for_validation(tmp_path: Path, valid: str):
    touch(tmp_path, *(f"{split}/{label}/a.png" for split in ("train", valid, "test") for label in LABELS))
    index = scan(str(tmp_path))
    assert sorted(index.frame["split"].unique()) == ["test", "train", "valid"]
    assert index.csv is None
    assert index.root == str(tmp_path)


def test_a_flat_tree_has_no_splits_and_may_have_subfolders(tmp_path: Path):
    index = scan(str(touch(tmp_path, "real/a.jpg", "real/deep/b.JPEG", "fake/c.webp")))
    assert index.flat
    assert index.frame["split"].isna().all()
    assert index.frame["label"].tolist() == ["fake", "real", "real"]


def test_files_are_listed_whatever_their_names_and_all_others_with_a_reason(tmp_path: Path):
    touch(
        tmp_path,
        "real/a.JPG",
        "real/hash1",
        "fake/b.HEIC",
        "real/.c.jpg",
        ".parts/real/d.jpg",
        "notes.txt",
        "other/e.jpg",
    )
    index = scan(str(tmp_path))
    assert index.frame["path"].tolist() == ["fake/b.HEIC", "real/a.JPG", "real/hash1"]
    outside, hidden = "not in a folder of real or fake images", "hidden: its name begins with a dot"
    assert dict(index.left_out[["path", "reason"]].to_numpy().tolist()) == {
        ".parts": hidden,
        "notes.txt": outside,
        "other/e.jpg": outside,
        "real/.c.jpg": hidden,
    }


def test_what_says_something_about_the_images_is_not_left_out(tmp_path: Path):
    make_archive(tmp_path)
    (tmp_path / GENERATED_MARK).write_text("{}")
    assert scan(str(tmp_path)).left_out.empty


def test_a_link_to_the_folder_above_adds_nothing(tmp_path: Path):
    touch(tmp_path, "real/a.jpg", "fake/b.jpg")
    (tmp_path / "real" / "up").symlink_to("..")
    index = scan(str(tmp_path))
    assert index.frame["path"].tolist() == ["fake/b.jpg", "real/a.jpg"]
    assert index.left_out["path"].tolist() == ["real/up"]


@pytest.mark.parametrize(
    ("files", "flat"),
    [(["test/fake/a.jpg"], False), (["fake/a.jpg"], True), (["train/real/a", "train/fake/b", "test/real/c"], False)],
)
def test_a_test_split_may_have_one_class(tmp_path: Path, files: list[str], flat: bool):
    index = scan(str(touch(tmp_path, *files)))
    assert index.frame["path"].tolist() == sorted(files)
    assert index.flat == flat


@pytest.mark.parametrize("marked", ["", KAGGLE_FOLDER])
def test_generated_images_are_recognized_by_their_mark(tmp_path: Path, marked: str):
    make_archive(tmp_path)
    (tmp_path / marked / GENERATED_MARK).write_text("{}")
    assert scan(str(tmp_path)).generated


def test_the_mark_is_found_from_the_inner_folder(tmp_path: Path):
    make_archive(tmp_path)
    (tmp_path / GENERATED_MARK).write_text("{}")
    assert scan(str(tmp_path / KAGGLE_FOLDER)).generated


def test_the_key_changes_only_with_the_files(tmp_path: Path):
    make_archive(tmp_path)
    before = scan(str(tmp_path)).key
    assert scan(str(tmp_path)).key == before
    touch(tmp_path, f"{KAGGLE_FOLDER}/train/real/new.jpg")
    assert scan(str(tmp_path)).key != before


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ([], "nowhere", "nowhere does not exist"),
        (["file"], "file", "is not a folder"),
        ([], "", "is empty"),
        (["cats/a.jpg", "dogs/b.jpg"], "", "no folders of real and fake"),
        (["train/real/a.jpg", "test/real/c.jpg", "test/fake/c.jpg"], "", "train/fake has no images"),
        (["train/real/a.jpg", "train/fake/b.jpg", "valid/fake/c.jpg"], "", "valid/real has no images"),
    ],
)
def test_the_error_for_an_unusable_source_names_it(tmp_path: Path, files: list[str], source: str, message: str):
    with pytest.raises(BadData, match=message) as error:
        scan(str(touch(tmp_path, *files) / source).rstrip("/"))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_without_files_and_files_without_rows_are_counted(tmp_path: Path):
    make_archive(tmp_path)
    (tmp_path / KAGGLE_FOLDER / "train/real/0.jpg").unlink()
    touch(tmp_path, f"{KAGGLE_FOLDER}/valid/fake/extra.jpg")
    csv = scan(str(tmp_path)).csv
    assert csv["rows_without_file"] == {"count": 1, "examples": ["train/real/0.jpg"]}
    assert csv["files_without_row"] == {"count": 1, "examples": ["valid/fake/extra.jpg"]}


def test_paths_may_begin_with_the_archive_folder_and_repeat(tmp_path: Path):
    make_archive(tmp_path)
    change_csv(tmp_path / "test.csv", path=lambda paths: f"{KAGGLE_FOLDER}/" + paths)
    table = pd.read_csv(tmp_path / "train.csv", index_col=0)
    pd.concat([table, table.head(1)]).to_csv(tmp_path / "train.csv")
    csv = scan(str(tmp_path)).csv
    assert csv["rows_without_file"]["count"] == csv["files_without_row"]["count"] == 0
    assert csv["repeated_rows"] == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": lambda numbers: 1 - numbers}, "its folder says fake .every row: this copy has the numbers flipped"),
        ({"label": [0, 0, 1, 0]}, "row 4 .train/real/1.jpg.: label 0 means fake, but its folder says real .1 rows"),
        ({"label": [0, 7, 1, 1]}, "label 7 means nothing"),
        ({"label_str": ["fake", "real", "real", "real"]}, "row 2 .*label 0 means fake, but label_str says real"),
    ],
)
def test_labels_that_contradict_the_folders_are_rejected(tmp_path: Path, columns: dict, message: str):
    make_archive(tmp_path)
    change_csv(tmp_path / "train.csv", **columns)
    with pytest.raises(BadData, match=message) as error:
        scan(str(tmp_path))
    assert str(tmp_path / "train.csv") in str(error.value)


@pytest.mark.parametrize(("text", "message"), [("", "not a CSV"), ("a,b\n1,2\n", "no column 'path'")])
def test_a_csv_with_other_columns_is_rejected(tmp_path: Path, text: str, message: str):
    make_archive(tmp_path)
    (tmp_path / "valid.csv").write_text(text)
    with pytest.raises(BadData, match=message):
        scan(str(tmp_path))


@pytest.mark.parametrize("splits", [[""], ["train/", "test/"]])
def test_a_sample_has_the_same_number_of_each_split_and_class_and_depends_on_the_seed(
    tmp_path: Path, splits: list[str]
):
    index = scan(str(touch(tmp_path, *(f"{s}{label}/{n}.jpg" for s in splits for label in LABELS for n in range(30)))))
    first, again, other = (index.sample(5, seed).frame for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first["path"].equals(other["path"])
    assert first.groupby(["split", "label"], dropna=False).size().tolist() == [5] * 2 * len(splits)
    assert first["path"].is_monotonic_increasing
    assert first["path"].isin(index.frame["path"]).all()
    assert index.sample(31, 0).frame.equals(index.frame)
    with pytest.raises(BadConfig, match="--sample is 0: it must be 1 or more"):
        index.sample(0, 1)


def test_unlabeled_files_are_listed_whatever_they_and_their_folders_are_called(tmp_path: Path):
    index = scan_unlabeled(str(touch(tmp_path, "a.JPG", "real/b.png", "deep/er/hash", "notes.txt", ".d.jpg")))
    assert index.frame["path"].tolist() == ["a.JPG", "deep/er/hash", "notes.txt", "real/b.png"]
    assert index.frame[["label", "split"]].isna().all(axis=None)
    assert index.left_out["path"].tolist() == [".d.jpg"]
    assert (index.root, index.flat) == (str(tmp_path), True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none", "none does not exist"),
        ("notes.txt", "notes.txt is not a folder"),
        ("empty", "has no images in it$"),
        ("hidden", r"has no images in it: \.a\.jpg is hidden"),
    ],
)
def test_the_error_for_a_source_without_images_names_it(tmp_path: Path, source: str, message: str):
    touch(tmp_path, "notes.txt", "hidden/.a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match=message):
        scan_unlabeled(str(tmp_path / source))


def test_every_image_and_csv_row_of_a_real_data_set_is_listed(faces: Path):
    index = scan(str(faces))
    assert len(index.frame) == len(list(faces.rglob("*.jpg")))
    assert index.csv["rows"] == {path.name: len(pd.read_csv(path)) for path in faces.glob("*.csv")}
