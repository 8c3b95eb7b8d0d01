"""detector_core.data.inspect: the properties of an image file."""

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
from tests.support.images import encode


def scene(seed: int, side: int = 96) -> Image.Image:
    """A random image, smooth like a photograph."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    return encode(image, format_, **options)


def distance(one: bytes, other: bytes) -> int:
    """The Hamming distance of the perceptual hashes of two files."""
    left, right = unpack_hashes([image_properties(one)["phash"], image_properties(other)["phash"]])
    return int(np.unpackbits(left ^ right).sum())


def test_every_property_of_a_jpeg_is_recorded():
    data = encoded(scene(1), quality=83, subsampling="4:2:2", comment=b"12345")
    properties = image_properties(data)
    assert list(properties) == list(PROPERTIES)
    assert (properties["width"], properties["height"], properties["bytes"]) == (96, 96, len(data))
    assert properties["sha256"] == hashlib.sha256(data).hexdigest()
    assert (properties["format"], properties["jpeg_quality"], properties["chroma"]) == ("JPEG RGB", 83, "4:2:2")
    assert properties["metadata_bytes"] == 5
    assert properties["brightness"] == pytest.approx(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean())


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 100])
def test_the_quality_that_libjpeg_saved_with_is_recovered(quality: int):
    assert image_properties(encoded(scene(2), quality=quality))["jpeg_quality"] == quality


def test_a_png_has_no_jpeg_properties():
    properties = image_properties(encoded(scene(1).convert("L"), "PNG"))
    assert (properties["format"], properties["jpeg_quality"], properties["jpeg_tables"], properties["chroma"]) == (
        "PNG L",
        None,
        "none",
        "none",
    )


def test_the_id_of_quantization_tables_depends_on_the_tables_alone():
    one, same, other = (image_properties(encoded(scene(seed), quality=q)) for seed, q in ((1, 80), (2, 80), (1, 81)))
    assert one["jpeg_tables"] == same["jpeg_tables"] != other["jpeg_tables"]


def test_width_and_height_are_those_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    properties = image_properties(encoded(scene(1).crop((0, 0, 96, 48)), exif=exif.tobytes()))
    assert (properties["width"], properties["height"]) == (48, 96)
    assert properties["metadata_bytes"] > 0


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
def test_edited_copies_are_near_duplicates_and_other_images_are_not(edit):
    original = scene(3)
    assert distance(encoded(original, quality=95), edit(original)) <= MAX_DISTANCE
    assert distance(encoded(original, quality=95), edit(scene(4))) > 2 * MAX_DISTANCE


def test_broken_images_are_reported_and_the_others_inspected(tmp_path: Path):
    intact = encoded(scene(1))
    (tmp_path / "intact.jpg").write_bytes(intact)
    (tmp_path / "truncated.jpg").write_bytes(intact[: len(intact) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    names = ["truncated.jpg", "intact.jpg", "text.jpg", "empty.jpg", "deleted.jpg"]
    frame = inspect_images(str(tmp_path), names).set_index("path")
    assert list(frame.index) == names
    assert frame["problem"].notna().tolist() == [True, False, True, True, True]
    assert "damaged" in frame.loc["truncated.jpg", "problem"]
    assert "not an image" in frame.loc["text.jpg", "problem"]
    assert "empty" in frame.loc["empty.jpg", "problem"]
    assert "cannot be opened" in frame.loc["deleted.jpg", "problem"]
    assert frame.loc["intact.jpg", "sha256"] == hashlib.sha256(intact).hexdigest()
    assert frame["width"].isna().sum() == 4


def test_the_transformed_file_is_inspected(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(1)))
    (tmp_path / "b.jpg").write_bytes(encoded(scene(2)))

    def transform(path: str, data: bytes) -> bytes:
        if path == "b.jpg":
            raise BadImage("no face was found")
        assert data == (tmp_path / path).read_bytes()
        return encoded(scene(1, side=24), "PNG")

    frame = inspect_images(str(tmp_path), ["a.jpg", "b.jpg"], transform)
    assert frame.loc[0, ["width", "format"]].tolist() == [24, "PNG RGB"]
    assert frame.loc[1, "problem"] == "no face was found"


def test_a_failing_disk_raises_an_error_that_names_the_file(tmp_path: Path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(BadData, match=rf"^{tmp_path}/a\.jpg cannot be read \(.*\): run the same command again"):
        inspect_images(str(tmp_path), ["a.jpg"])


def test_the_error_of_a_full_disk_is_not_translated(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(1)))

    def transform(_: str, __: bytes) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        inspect_images(str(tmp_path), ["a.jpg"], transform)
