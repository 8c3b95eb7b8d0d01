"""detector_core.data.inspect: what is recorded about one image."""

import errno
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector_core.data.duplicates import MAX_DISTANCE, unpack_hashes
from detector_core.data.inspect import PROPERTIES, image_properties, inspect_images
from detector_core.errors import BadData, BadImage


def scene(seed: int, side: int = 96) -> Image.Image:
    """A smooth random image, as photographs are."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def distance(one: bytes, other: bytes) -> int:
    left, right = unpack_hashes([image_properties(one)["phash"], image_properties(other)["phash"]])
    return int(np.unpackbits(left ^ right).sum())


def test_a_jpeg_is_described_whole():
    data = encoded(scene(1), quality=83, subsampling="4:2:2", comment=b"12345")
    found = image_properties(data)
    assert list(found) == list(PROPERTIES)
    assert (found["width"], found["height"], found["bytes"]) == (96, 96, len(data))
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert (found["format"], found["jpeg_quality"], found["chroma"]) == ("JPEG RGB", 83, "4:2:2")
    assert found["metadata_bytes"] == 5
    assert found["brightness"] == pytest.approx(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean())


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 100])
def test_the_quality_that_libjpeg_was_told_is_found(quality: int):
    assert image_properties(encoded(scene(2), quality=quality))["jpeg_quality"] == quality


def test_a_png_has_no_jpeg_facts():
    found = image_properties(encoded(scene(1).convert("L"), "PNG"))
    assert (found["format"], found["jpeg_quality"], found["jpeg_tables"], found["chroma"]) == (
        "PNG L",
        None,
        "none",
        "none",
    )


def test_other_tables_have_another_id_and_the_same_have_the_same():
    one, same, other = (image_properties(encoded(scene(seed), quality=q)) for seed, q in ((1, 80), (2, 80), (1, 81)))
    assert one["jpeg_tables"] == same["jpeg_tables"] != other["jpeg_tables"]


def test_sizes_are_those_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = image_properties(encoded(scene(1).crop((0, 0, 96, 48)), exif=exif.tobytes()))
    assert (found["width"], found["height"]) == (48, 96)
    assert found["metadata_bytes"] > 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: encoded(image, quality=40),
        lambda image: encoded(image.resize((48, 48)), quality=75),
        lambda image: encoded(image.point(lambda value: value * 0.9), quality=90),
        lambda image: encoded(image, "PNG"),
    ],
    ids=["recompressed", "half size", "darker", "lossless"],
)
def test_edited_copies_are_near_and_other_images_are_not(edit):
    original = scene(3)
    assert distance(encoded(original, quality=95), edit(original)) <= MAX_DISTANCE
    assert distance(encoded(original, quality=95), edit(scene(4))) > 2 * MAX_DISTANCE


def test_inspect_names_what_is_wrong_and_goes_on(tmp_path: Path):
    whole = encoded(scene(1))
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    names = ["torn.jpg", "whole.jpg", "text.jpg", "empty.jpg", "gone.jpg"]
    frame = inspect_images(str(tmp_path), names).set_index("path")
    assert list(frame.index) == names
    assert frame["problem"].notna().tolist() == [True, False, True, True, True]
    assert "damaged" in frame.loc["torn.jpg", "problem"]
    assert "not an image" in frame.loc["text.jpg", "problem"]
    assert "empty" in frame.loc["empty.jpg", "problem"]
    assert "cannot be opened" in frame.loc["gone.jpg", "problem"]
    assert frame.loc["whole.jpg", "sha256"] == hashlib.sha256(whole).hexdigest()
    assert frame["width"].isna().sum() == 4


def test_inspect_looks_at_what_a_change_makes_of_the_file(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(1)))
    (tmp_path / "b.jpg").write_bytes(encoded(scene(2)))

    def change(path: str, data: bytes) -> bytes:
        if path == "b.jpg":
            raise BadImage("no face was found")
        assert data == (tmp_path / path).read_bytes()
        return encoded(scene(1, side=24), "PNG")

    frame = inspect_images(str(tmp_path), ["a.jpg", "b.jpg"], change)
    assert frame.loc[0, ["width", "format"]].tolist() == [24, "PNG RGB"]
    assert frame.loc[1, "problem"] == "no face was found"


def test_a_disk_that_fails_stops_it_and_names_the_file(tmp_path: Path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(BadData, match=rf"^{tmp_path}/a\.jpg cannot be read \(.*\): run the same command again"):
        inspect_images(str(tmp_path), ["a.jpg"])


def test_a_full_disk_is_left_to_the_caller(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(1)))

    def change(_: str, __: bytes) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        inspect_images(str(tmp_path), ["a.jpg"], change)
