"""jobs.prepare: from a folder of images to a data set, on a real Ray."""

import argparse
import functools
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from detector_core.data import manifest
from detector_core.data.index import scan
from detector_core.data.inspect import inspect_images
from detector_core.errors import BadConfig, BadData
from detector_core.images import align
from detector_core.labels import LABELS, SPLITS
from jobs import prepare
from jobs.common.chunks import ChunkStore


@pytest.fixture
def run(run_job: Any, shared_ray: str) -> Any:  # noqa: ARG001
    """Runs the job on the shared Ray cluster."""
    return functools.partial(run_job, "prepare")


def result_of(done: Any) -> dict:
    assert done.code == 0, done.messages
    return done.result


def photograph(seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def put(root: Path, path: str, data: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A plain tree of 4 images a class and split; one is torn, one is in two splits, one has no suffix; and a text."""
    root = tmp_path / "portraits"
    for number, (split, label) in enumerate((split, label) for split in SPLITS for label in LABELS):
        for index in range(4):
            put(root, f"{split}/{label}/{index}.jpg", photograph(10 * number + index))
    put(root, "test/fake/0.jpg", (root / "train/fake/0.jpg").read_bytes())
    put(root, "valid/real/3.jpg", photograph(99)[:300])
    (root / "test/real/0.jpg").rename(root / "test/real/suffixless")
    put(root, "test/real/notes.jpg", b"no image")
    (root / "train/real/loop").symlink_to(root)
    (root / "sources.csv").write_text("path,group\ntrain/real/0.jpg,anna\ntest/real/1.jpg,anna\n")
    return root


def test_a_tree_becomes_a_data_set_and_finished_chunks_are_not_repeated(tree: Path, tmp_path: Path, run: Any):
    dataset = tmp_path / "made" / "dataset"
    index = scan(str(tree))
    first = inspect_images(index.root, index.frame["path"].tolist())
    marked = first.assign(brightness=first["brightness"].where(first["path"] != "train/real/1.jpg", 255.0))
    marked.loc[marked["path"] == "train/real/1.jpg", "jpeg_quality"] = 42
    ChunkStore(str(dataset), index.key).write(0, marked)

    done = run(tree, "--out", dataset, "--source-of", "*/fake/[01].jpg=gan", "--source-of", "*/fake/*=diffusion")

    result = result_of(done)
    saved = manifest.load(str(dataset))
    assert saved.name == "portraits"
    assert saved.root == str(tree)
    assert result == {
        "dataset": str(dataset),
        "images": 23,
        "unreadable": 2,
        "left_out": 1,
        "excluded": 0,
        "duplicates_across_splits": 1,
        "groups_across_splits": 1,
        "sources": ["diffusion", "gan", "unnamed"],
        "counts": manifest.counts(saved.frame),
        "warnings": json.loads((dataset / "audit.json").read_text())["warnings"],
        "fingerprint": saved.fingerprint,
    }
    assert result["counts"]["valid"] == {"real": 3, "fake": 4}
    rows = saved.frame.set_index("path")
    assert rows.loc[["test/fake/1.jpg", "test/fake/2.jpg", "test/real/1.jpg"], "source"].tolist() == [
        "gan",
        "diffusion",
        "unnamed",
    ]
    assert rows.index[rows["group"] == "anna"].tolist() == ["test/real/1.jpg", "train/real/0.jpg"]
    assert "groups (of a person, video or seed) across splits: 1 (test metrics" in done.messages
    assert rows.loc["train/real/1.jpg", "jpeg_quality"] == 42, "the finished chunk was not used"
    assert sorted(path.name for path in dataset.iterdir()) == ["audit.json", "dataset.json", "manifest.parquet"]
    audit = json.loads((dataset / "audit.json").read_text())
    assert audit["unreadable"]["reasons"] == {"damaged image": 1, "not an image": 1}
    assert [row["path"] for row in audit["unreadable"]["files"]] == ["test/real/notes.jpg", "valid/real/3.jpg"]
    assert [row["path"] for row in audit["left_out"]["files"]] == ["train/real/loop"]
    assert "near-identical images across splits: 1" in done.messages
    assert "inspecting: 100%" in done.messages


def test_near_duplicates_across_splits_can_be_excluded(tree: Path, tmp_path: Path, run: Any):
    done = run(tree, "--out", tmp_path / "dataset", "--exclude", "duplicates")
    result = result_of(done)
    assert (result["images"], result["excluded"], result["duplicates_across_splits"]) == (22, 1, 0)
    assert result["counts"]["train"] == {"real": 4, "fake": 3}
    audit = json.loads((tmp_path / "dataset" / "audit.json").read_text())
    assert audit["excluded"]["files"] == [
        {"path": "train/fake/0.jpg", "reason": "near-duplicate of an image in the test split"}
    ]
    assert "excluded duplicates: 1: near-duplicate of an image in the test split (1)" in done.messages


def test_a_source_without_splits_is_split_with_near_duplicates_kept_together(tmp_path: Path, run: Any):
    root = tmp_path / "flat"
    for label in LABELS:
        for index in range(14):
            put(root, f"{label}/{index:02}.jpg", photograph(index // 2 + 100 * LABELS.index(label)))
    anna = ("real/00.jpg", "fake/02.jpg", "fake/13.jpg")  # joins three pairs of twins
    put(root, "sources.csv", "\n".join(["path,group", *(f"{path},anna" for path in anna)]).encode())
    dataset = tmp_path / "dataset"
    result = result_of(
        run(root.as_uri(), "--out", dataset.as_uri(), "--seed", 5, "--name", "twins", "--terms", "not for sale")
    )
    saved = manifest.load(str(dataset))
    assert (saved.name, saved.terms) == ("twins", "not for sale")
    assert result["counts"] == {
        "train": {"real": 10, "fake": 10},
        "valid": {"real": 2, "fake": 2},
        "test": {"real": 2, "fake": 2},
    }
    assert (result["duplicates_across_splits"], result["groups_across_splits"]) == (0, 0)
    assert saved.frame.loc[saved.frame["group"] == "anna", "split"].nunique() == 1
    assert json.loads((dataset / "audit.json").read_text())["split"] == {"seed": 5, "ratio": [5, 1, 1]}


@pytest.mark.parametrize("folder", ["test/fake", "fake"])
def test_the_output_of_one_generator_becomes_a_test_split(tmp_path: Path, run: Any, folder: str):
    for index in range(3):
        put(tmp_path / "new", f"{folder}/{index}.jpg", photograph(index))
    done = run(tmp_path / "new", "--out", tmp_path / "dataset")
    result = result_of(done)
    nothing = {"real": 0, "fake": 0}
    assert result["counts"] == {"train": nothing, "valid": nothing, "test": {"real": 0, "fake": 3}}
    assert manifest.load(str(tmp_path / "dataset")).split("test")["label"].tolist() == ["fake"] * 3
    assert ("all images are fake: they become a test split" in done.messages) == (folder == "fake")


def test_aligned_faces_become_the_data_set(faces: Path, tmp_path: Path, run: Any):
    for label in LABELS:
        first = sorted((faces / "real_vs_fake" / "real-vs-fake" / "valid" / label).iterdir())[0]
        canvas = Image.new("RGB", (600, 500), (100, 110, 120))
        canvas.paste(Image.open(first).convert("RGB"), (200, 120))
        buffer = io.BytesIO()
        canvas.save(buffer, "JPEG", quality=95)
        put(tmp_path / "wide", f"train/{label}/somebody.jpg", buffer.getvalue())
    put(tmp_path / "wide", "train/real/nobody.jpg", photograph(1))
    dataset = tmp_path / "dataset"
    result = result_of(run(tmp_path / "wide", "--out", dataset, "--faces"))
    saved = manifest.load(str(dataset))
    assert (result["images"], result["unreadable"]) == (2, 1)
    assert json.loads((dataset / "audit.json").read_text())["unreadable"]["files"] == [
        {"path": "train/real/nobody.jpg", "reason": "no face was found"}
    ]
    assert saved.root == str(dataset / "images")
    for row in saved.frame.itertuples():
        with Image.open(Path(saved.root) / row.path) as crop:
            assert crop.format == "PNG"
            assert crop.size == (row.width, row.height)
            assert crop.width == pytest.approx(256 * align.INSET, abs=30)
            assert crop.width == crop.height


def test_a_missing_source_is_reported_in_one_line_and_nothing_is_written(tmp_path: Path, run: Any):
    done = run(tmp_path / "nowhere", "--out", tmp_path / "dataset")
    assert done.code == 1
    assert done.result == {}
    assert done.messages.startswith(f"error: {tmp_path}/nowhere does not exist")
    assert done.messages.count("\n") == 1
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": None, "download": None}, "give either SOURCE or --download kaggle"),
        ({"source": "x", "download": "kaggle"}, "give either SOURCE or --download kaggle"),
    ],
)
def test_invalid_flags_are_refused(changes: dict, message: str):
    valid = {"source": "x", "download": None}
    with pytest.raises(BadConfig, match=message):
        prepare.job(argparse.Namespace(**{**valid, **changes}))


@pytest.mark.parametrize("text", ["5", "5:1:x", "", "5:0:1", "5:1:1:1"])
def test_an_invalid_ratio_is_refused(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        prepare.main(["x", "--out", "y", "--ratio", text])
    assert f"{text!r} is not three whole numbers above 0" in capsys.readouterr().err


def test_a_class_without_a_readable_image_stops_the_job():
    problems = {"a.jpg": ("real", None), "b.jpg": ("fake", "damaged image: torn"), "c.jpg": ("fake", "not an image")}
    frame = pd.DataFrame([(path, *rest) for path, rest in problems.items()], columns=["path", "label", "problem"])
    with pytest.raises(BadData, match=r"none of the 2 files .* fake .*the first is b\.jpg: damaged image: torn"):
        prepare.check_classes(frame, "root")


KAGGLEHUB = {
    "missing": "raise ImportError('no')",
    "offline": "def dataset_download(name): raise ConnectionError('Name or service not known\\nmore')",
    "there": "import os\ndef dataset_download(name):\n    assert name.endswith('140k-real-and-fake-faces')\n"
    "    return os.environ['FETCHED']",
}


@pytest.fixture
def kagglehub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for kagglehub, in the state that the test names."""
    (tmp_path / "kagglehub.py").write_text(KAGGLEHUB[request.param])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FETCHED", "/fetched")
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    yield
    sys.modules.pop("kagglehub", None)


@pytest.mark.parametrize("kagglehub", ["missing", "offline"], indirect=True)
@pytest.mark.usefixtures("kagglehub")
def test_a_failed_download_says_how_to_download_manually():
    with pytest.raises(BadData, match=re.escape(prepare.KAGGLE_SET)) as error:
        prepare.download_kaggle()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kagglehub", ["there"], indirect=True)
@pytest.mark.usefixtures("kagglehub")
def test_a_download_returns_its_folder():
    assert prepare.download_kaggle() == "/fetched"
