"""detector_core.images.quality: each flag on images made for it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from detector_core.images import quality
from detector_core.images.faces import Face


def face(side: int) -> Face:
    return Face(box=(10, 10, 10 + side, 10 + side), score=1.0, landmarks=np.zeros((5, 2), np.float32))


def texture(side: int = 200) -> Image.Image:
    """Shapes of several sizes, as a face has them."""
    draw = np.random.default_rng(0)
    layers = [
        np.asarray(Image.fromarray(draw.integers(0, 256, (n, n), dtype=np.uint8)).resize((side, side)), dtype=float)
        for n in (6, 12, 24, 48)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).convert("RGB")


def test_a_good_face_has_no_flag() -> None:
    assert quality.face_flags(np.asarray(texture()), face(150)) == ()


def test_each_flag_has_its_image() -> None:
    sharp = texture()
    blurred = sharp.filter(ImageFilter.GaussianBlur(4))
    dark = sharp.point(lambda value: value // 6)
    assert quality.face_flags(np.asarray(sharp), face(60)) == ("small",)
    assert quality.face_flags(np.asarray(blurred), face(150)) == ("blurred",)
    assert quality.face_flags(np.asarray(dark), face(150)) == ("dark",)


@pytest.mark.parametrize("box", [(-20, -20, 5, 5), (190, 190, 230, 230), (10, 10, 10, 10), (10, 10, 11, 180)])
def test_odd_boxes_do_no_harm(box: tuple[float, float, float, float]) -> None:
    odd = Face(box=box, score=1.0, landmarks=np.zeros((5, 2), np.float32))
    assert "small" in quality.face_flags(np.asarray(texture()), odd) or box[3] == 180


@pytest.mark.parametrize("said", [10, 30, 50, 75, 90, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(said: int) -> None:
    buffer = io.BytesIO()
    texture().save(buffer, "JPEG", quality=said)
    assert quality.jpeg_quality(buffer.getvalue()) == pytest.approx(said, abs=5)
    assert quality.is_recompressed(buffer.getvalue()) == (said < 60)


def test_other_files_have_no_quality() -> None:
    buffer = io.BytesIO()
    texture().save(buffer, "PNG")
    for data in (buffer.getvalue(), b"", b"text", b"\xff\xd8\xff"):
        assert quality.jpeg_quality(data) is None
        assert not quality.is_recompressed(data)


def test_a_jpeg_that_states_no_tables_has_no_quality() -> None:
    buffer = io.BytesIO()
    texture().convert("L").save(buffer, "JPEG", quality=30)
    data = buffer.getvalue()
    table = data.index(b"\xff\xdb")
    bare = data[:table] + data[table + 2 + int.from_bytes(data[table + 2 : table + 4], "big") :]
    assert (quality.is_recompressed(data), quality.is_recompressed(bare)) == (True, False)
    assert quality.jpeg_quality(bare) is None


def test_portraits_of_the_data_set_are_good_until_they_are_blurred(faces: Path) -> None:
    folder = faces / "real_vs_fake/real-vs-fake/valid"
    box = Face(box=(35, 30, 220, 235), score=1.0, landmarks=np.zeros((5, 2), np.float32))
    for label in ("real", "fake"):
        for path in sorted((folder / label).iterdir())[:5]:
            image = Image.open(path).convert("RGB")
            assert "blurred" not in quality.face_flags(np.asarray(image), box)
            assert "blurred" in quality.face_flags(np.asarray(image.filter(ImageFilter.GaussianBlur(4))), box)
