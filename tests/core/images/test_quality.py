"""detector_core.images.quality: each flag on an image that deserves it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from detector_core.images import quality
from detector_core.images.decode import decode_file, opened
from detector_core.images.faces import Face
from tests.support.images import encode


def face(side: int) -> Face:
    return Face(box=(10, 10, 10 + side, 10 + side), score=1.0, landmarks=np.zeros((5, 2), np.float32))


def texture(side: int = 200) -> Image.Image:
    """An image with structure at several scales, like a face."""
    draw = np.random.default_rng(0)
    layers = [
        np.asarray(Image.fromarray(draw.integers(0, 256, (n, n), dtype=np.uint8)).resize((side, side)), dtype=float)
        for n in (6, 12, 24, 48)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).convert("RGB")


def test_a_good_face_has_no_flag() -> None:
    assert quality.face_flags(np.asarray(texture()), face(150)) == ()


def test_a_small_blurred_or_dark_face_is_flagged() -> None:
    sharp = texture()
    blurred = sharp.filter(ImageFilter.GaussianBlur(4))
    dark = sharp.point(lambda value: value // 6)
    assert quality.face_flags(np.asarray(sharp), face(60)) == ("small",)
    assert quality.face_flags(np.asarray(blurred), face(150)) == ("blurred",)
    assert quality.face_flags(np.asarray(dark), face(150)) == ("dark",)


@pytest.mark.parametrize(
    ("image", "image_size", "reason"),
    [
        (Image.new("RGB", (1, 1)), 128, "too_small"),
        (texture(39), 128, "too_small"),
        (texture(39), 64, None),  # the network takes small images
        (texture(40), 128, None),
        (Image.new("RGB", (3000, 2000), "white"), 128, "blank"),
        (texture().point(lambda value: 100 + value // 60), 128, "blank"),
        (texture().point(lambda value: value // 10), 128, None),
    ],
)
def test_an_image_that_shows_nothing_is_recognized(image: Image.Image, image_size: int, reason: str | None) -> None:
    assert quality.shows_nothing(np.asarray(image.convert("RGB")), image_size) == reason


def test_one_face_on_a_white_page_is_something() -> None:
    page = Image.new("RGB", (4000, 3000), "white")
    page.paste(texture(), (1900, 1400))
    assert quality.shows_nothing(np.asarray(page), 128) is None


def test_what_the_center_square_loses_is_flagged() -> None:
    assert quality.square_flags(np.zeros((128, 128, 3), np.uint8), 128) == ()
    assert quality.square_flags(np.zeros((127, 200, 3), np.uint8), 128) == ("upscaled", "cropped")


@pytest.mark.parametrize(
    ("box", "is_small"),
    [((-20, -20, 5, 5), True), ((190, 190, 230, 230), True), ((10, 10, 10, 10), True), ((10, 10, 11, 180), False)],
    ids=["beyond the upper left", "beyond the lower right", "empty", "one pixel wide"],
)
def test_a_face_is_small_by_its_longer_side_wherever_its_box_lies(
    box: tuple[float, float, float, float], is_small: bool
) -> None:
    odd = Face(box=box, score=1.0, landmarks=np.zeros((5, 2), np.float32))
    assert ("small" in quality.face_flags(np.asarray(texture()), odd)) == is_small


@pytest.mark.parametrize(
    ("saved_with", "recompressed"),
    [(1, True), (30, True), (49, True), (50, True), (59, True), (60, False), (100, False)],
)
def test_the_quality_of_a_jpeg_is_read_from_its_tables(saved_with: int, recompressed: bool) -> None:
    decoded = decode_file(encode(texture(), "JPEG", quality=saved_with))
    assert quality.jpeg_quality(decoded.quantization) == saved_with
    assert ("recompressed" in quality.file_flags(decoded)) == recompressed


def test_tables_that_libjpeg_does_not_write_get_the_closest_quality() -> None:
    with Image.open(io.BytesIO(encode(texture(), "JPEG", quality=70))) as image:
        tables = image.quantization
    tables[0] = [value + 1 for value in tables[0]]
    decoded = decode_file(encode(texture(), "JPEG", qtables=tables))
    assert quality.jpeg_quality(decoded.quantization) == pytest.approx(70, abs=3)


def test_files_that_are_not_jpeg_have_no_quality() -> None:
    decoded = decode_file(encode(texture()))
    assert quality.jpeg_quality(decoded.quantization) is None
    assert "recompressed" not in quality.file_flags(decoded)


def test_a_jpeg_without_quantization_tables_has_no_quality() -> None:
    data = encode(texture().convert("L"), "JPEG", quality=30)
    table = data.index(b"\xff\xdb")
    without = data[:table] + data[table + 2 + int.from_bytes(data[table + 2 : table + 4], "big") :]
    with opened(data) as image, opened(without) as image_without:
        assert quality.jpeg_quality(image.quantization) == 30
        assert quality.jpeg_quality(image_without.quantization) is None


def test_real_portraits_are_flagged_only_after_blurring_them(faces: Path) -> None:
    folder = faces / "real_vs_fake/real-vs-fake/valid"
    box = Face(box=(35, 30, 220, 235), score=1.0, landmarks=np.zeros((5, 2), np.float32))
    for label in ("real", "fake"):
        for path in sorted((folder / label).iterdir())[:5]:
            image = Image.open(path).convert("RGB")
            assert "blurred" not in quality.face_flags(np.asarray(image), box)
            assert "blurred" in quality.face_flags(np.asarray(image.filter(ImageFilter.GaussianBlur(4))), box)
