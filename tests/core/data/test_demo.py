"""detector_core.data.demo: the layout, the seed, and that only the traces distinguish the classes."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from detector_core.data import demo
from detector_core.data.manifest import GENERATED_MARK
from detector_core.errors import BadConfig, OperationRefused
from detector_core.labels import LABELS, SPLITS

COUNTS = {"train": 70, "valid": 15, "test": 15}
FEW = {"train": 2, "valid": 1, "test": 1}
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo.generate(tmp_path_factory.mktemp("demo") / "data", seed=5, size=SIZE, counts=COUNTS)


@pytest.fixture(scope="module")
def images(folder):
    """One row per image: split, label, file size, and the pixels as float."""
    rows = []
    for path in sorted((folder / demo.IMAGES).rglob("*.jpg")):
        with Image.open(path) as image:
            rows.append((path.parts[-3], path.parts[-2], path.stat().st_size, np.asarray(image, dtype=float)))
    return pd.DataFrame(rows, columns=["split", "label", "bytes", "pixels"])


def contents(folder):
    """The bytes of every file by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_csvs_list_exactly_the_files(folder):
    listed = set()
    for split in SPLITS:
        table = pd.read_csv(folder / f"{split}.csv")
        assert list(table.columns) == ["Unnamed: 0", *demo.CSV_COLUMNS]
        assert table["label_str"].value_counts().to_dict() == dict.fromkeys(LABELS, COUNTS[split])
        assert (table["label"] == (table["label_str"] == "real")).all()
        assert (table["path"] == split + "/" + table["label_str"] + "/" + table["id"] + ".jpg").all()
        assert (table["original_path"] == table["id"] + ".jpg").all()
        listed |= set(table["path"])
    on_disk = {p.relative_to(folder / demo.IMAGES).as_posix() for p in (folder / demo.IMAGES).rglob("*.jpg")}
    assert listed == on_disk
    assert len(listed) == 2 * sum(COUNTS.values())


def test_the_csv_columns_are_those_of_the_kaggle_archive(folder, faces):
    archive, generated = (pd.read_csv(root / "test.csv").columns for root in (faces, folder))
    assert list(archive) == list(generated)


def test_the_mark_records_the_parameters(folder):
    mark = json.loads((folder / GENERATED_MARK).read_text())
    assert (mark["seed"], mark["size"], mark["counts"]) == (5, SIZE, COUNTS)
    assert mark["note"].startswith("generated demo data")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(tmp_path):
    first, again, other = (
        contents(demo.generate(tmp_path / name, seed=seed, size=32, counts=FEW))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_an_image_does_not_depend_on_the_counts(tmp_path):
    few = demo.generate(tmp_path / "few", size=32, counts=FEW)
    more = demo.generate(tmp_path / "more", size=32, counts={split: count + 1 for split, count in FEW.items()})
    jpegs = [{p.name: p.read_bytes() for p in root.rglob("*.jpg")} for root in (few, more)]
    assert jpegs[0].items() < jpegs[1].items()


def test_a_complete_folder_is_kept_and_an_incomplete_one_replaced(tmp_path):
    out = demo.generate(tmp_path / "data", size=32, counts=FEW)
    complete = contents(out)
    image = next(out.rglob("*.jpg"))
    before = image.stat().st_mtime_ns
    demo.generate(out, size=32, counts=FEW)
    assert image.stat().st_mtime_ns == before

    image.unlink()
    demo.generate(out, size=32, counts=FEW)
    assert contents(out) == complete

    demo.generate(out, size=32, counts=FEW, seed=9)
    assert json.loads((out / GENERATED_MARK).read_text())["seed"] == 9
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done, total):
        assert total == 8
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.generate(tmp_path / "data", size=32, counts=FEW, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(OperationRefused, match="contains files that are not generated demo data"):
        demo.generate(tmp_path, size=32, counts=FEW)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"size": 30}, "size is 30"),
        ({"size": 66}, "multiple of 4"),
        ({"counts": {"train": 1}}, "counts are"),
        ({"counts": dict.fromkeys(SPLITS, 0)}, "1 or more"),
    ],
)
def test_invalid_parameters_are_rejected(tmp_path, wrong, message):
    with pytest.raises(BadConfig, match=message):
        demo.generate(tmp_path / "data", **({"size": 32, "counts": FEW} | wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("file size", lambda row: row["bytes"]),
        ("width", lambda row: row["pixels"].shape[1]),
        ("height", lambda row: row["pixels"].shape[0]),
        ("mean brightness", lambda row: row["pixels"].mean()),
        ("contrast", lambda row: row["pixels"].std()),
    ],
)
def test_no_simple_property_separates_the_classes(images, name, measure):
    auc = roc_auc_score(images["label"] == "fake", images.apply(measure, axis=1))
    assert 0.4 <= auc <= 0.6, name


def test_both_classes_are_encoded_in_the_same_way(folder):
    headers = set()
    for path in (folder / demo.IMAGES).rglob("*.jpg"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            tables = tuple((key, tuple(table)) for key, table in sorted(image.quantization.items()))
            layers = tuple(layer[1:3] for layer in image.layer)
            headers.add((image.size, image.mode, tables, layers, tuple(sorted(image.info))))
    assert len(headers) == 1


def test_no_two_images_show_the_same_scene(images):
    # Camera and decoder preserve the means of 8 x 8 blocks, so two images of the same scene would be close.
    small = np.stack([p.reshape(8, SIZE // 8, 8, SIZE // 8, 3).mean((1, 3)).ravel() for p in images["pixels"]])
    distance = np.abs(small[:, None] - small[None]).mean(-1)
    assert distance[np.triu_indices(len(small), 1)].min() > 5
    scene = demo.portrait(np.random.default_rng(0), 2 * SIZE)
    photo = demo.camera(scene, np.random.default_rng(1))
    decoded, _ = demo.decoder(scene, np.random.default_rng(2))
    blocks = [p.reshape(8, SIZE // 8, 8, SIZE // 8, 3).mean((1, 3)) for p in (photo, decoded)]
    assert np.abs(255 * (blocks[0] - blocks[1])).mean() < 5


def test_fakes_carry_a_periodic_trace(images):
    """Energy at a period of 2 pixels, relative to that of the band around it."""

    def trace(pixels):
        gray = pixels.mean(-1)
        spectrum = np.abs(np.fft.fft2(gray - gray.mean()))
        half = SIZE // 2
        band = spectrum[half - 6 : half + 7, half - 6 : half + 7]
        return np.log(spectrum[half, half] / np.median(band))

    assert roc_auc_score(images["label"] == "fake", images["pixels"].map(trace)) > 0.8
