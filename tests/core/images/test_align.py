"""detector_core.images.align: a portrait pasted at any scale, rotation and position is extracted again."""

import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images import align
from detector_core.images.align import (
    CANONICAL,
    INSET,
    Frame,
    bounding_box,
    extract_portrait,
    portrait_frame,
    project_back,
    save_portrait,
)
from detector_core.images.decode import Pixels
from detector_core.images.faces import Face
from tests.support.images import encode

SIZE = 128


def drawing(side: int = SIZE) -> Pixels:
    """A smooth image without symmetry, so that a wrong rotation or a mirror image is noticed."""
    y, x = np.mgrid[0:side, 0:side] / side
    red = 128 + 80 * np.sin(5 * x + 2 * y)
    green = 128 + 80 * np.cos(4 * y - x)
    return np.stack([red, green, 255 * x * y], axis=-1).astype(np.uint8)


def paste_drawing(side: float, degrees: float, canvas: int = 700) -> tuple[Pixels, Frame]:
    """The drawing on a gray canvas, and the frame it was pasted into."""
    frame = Frame(corner=(canvas / 2 - side / 3, canvas / 3), side=side, degrees=degrees)
    source = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE]], np.float32) - 0.5
    target = frame.corners[:3].astype(np.float32) - 0.5
    gray = np.full((canvas, canvas, 3), 128, np.uint8)
    matrix = cv2.getAffineTransform(source, target)
    cv2.warpAffine(
        drawing(), matrix, (canvas, canvas), dst=gray, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_TRANSPARENT
    )
    return gray, frame


def face_for(frame: Frame) -> Face:
    """A face whose landmarks are exactly those of an aligned portrait in the frame."""
    right, down = frame.corners[1] - frame.corners[0], frame.corners[3] - frame.corners[0]
    eyes_and_mouth = frame.corners[0] + CANONICAL @ np.stack([right, down])
    nose = eyes_and_mouth.mean(0) + 40  # anywhere, since it is not used
    landmarks = np.insert(eyes_and_mouth, 2, nose, axis=0).astype(np.float32)
    (x, y), half = frame.corners.mean(0), 0.36 * frame.side
    return Face(box=(x - half, y - half, x + half, y + half), score=1.0, landmarks=landmarks)


@given(side=st.floats(20, 4000), degrees=st.floats(-179, 179), x=st.floats(-500, 5000), y=st.floats(-500, 5000))
def test_landmarks_determine_the_frame(side: float, degrees: float, x: float, y: float) -> None:
    portrait = Frame(corner=(x, y), side=side, degrees=degrees)
    frame, fitted = portrait.scaled(INSET), portrait_frame(face_for(portrait))
    assert frame.corners.mean(0) == pytest.approx(portrait.corners.mean(0))
    assert fitted.side == pytest.approx(INSET * side, rel=1e-2)
    assert math.remainder(fitted.degrees - degrees, 360) == pytest.approx(0, abs=1)
    assert np.abs(fitted.corners - frame.corners).max() < 0.02 * side + 0.1


@pytest.mark.parametrize(("x", "y", "scale"), [(200, 150, 0.0), (-500, -500, 0.0), (-500, 150, 1.0), (200, 150, 20.0)])
def test_landmarks_that_contradict_the_box_are_ignored(x: float, y: float, scale: float) -> None:
    """Coinciding landmarks outside of the image would keep a thread busy for minutes."""
    eyes_and_mouth = np.array([x, y]) + scale * 140 * (CANONICAL - 0.5)
    landmarks = np.insert(eyes_and_mouth, 2, [x, y], axis=0).astype(np.float32)
    frame = portrait_frame(Face(box=(150, 100, 250, 200), score=1.0, landmarks=landmarks))
    assert (frame.corner, frame.side, frame.degrees) == (pytest.approx((135.83, 85.83)), pytest.approx(128.34), 0)


@pytest.mark.parametrize("side", [90, 128, 200, 400])
@pytest.mark.parametrize("degrees", [0, 25, -25])
def test_a_pasted_portrait_is_extracted_again(side: int, degrees: float) -> None:
    canvas, frame = paste_drawing(side, degrees)
    extracted = extract_portrait(canvas, frame, SIZE)
    inner = slice(8, -8)  # the border is interpolated with the canvas
    difference = np.abs(extracted.astype(int) - drawing().astype(int))[inner, inner]
    assert extracted.shape == (SIZE, SIZE, 3)
    assert difference.mean() < 2


def test_a_frame_around_the_whole_image_changes_nothing() -> None:
    image = drawing()
    same = extract_portrait(image, Frame(corner=(0, 0), side=SIZE, degrees=0), SIZE)
    assert np.abs(same.astype(int) - image.astype(int)).max() <= 1


def test_pixels_beyond_the_border_are_mirrored_not_black() -> None:
    bright = np.full((200, 200, 3), 200, np.uint8)
    extracted = extract_portrait(bright, Frame(corner=(-60, -60), side=150, degrees=10), SIZE)
    assert extracted.min() >= 198


def test_a_large_face_is_downscaled_without_aliasing() -> None:
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (512, 512))
    checkerboard = np.repeat(fine[..., None], 3, axis=2)
    extracted = extract_portrait(checkerboard, Frame(corner=(100, 100), side=800, degrees=5), 100)
    assert extracted.std() < 8  # uniform gray; without antialiasing there would be a moire pattern


@pytest.mark.parametrize(("side", "saved"), [(300, 279), (1400, align.MAX_PORTRAIT)])
def test_a_face_in_a_photo_is_saved_as_a_portrait_at_its_own_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, saved: int
) -> None:
    canvas, frame = paste_drawing(side, 10, canvas=max(700, 3 * side))
    face = face_for(frame)
    monkeypatch.setattr(align, "detect", lambda _: [face])
    data = save_portrait("train/real/a.jpg", encode(Image.fromarray(canvas)), folder=str(tmp_path))
    assert (tmp_path / "train/real/a.jpg.png").read_bytes() == data
    portrait = np.asarray(Image.open(io.BytesIO(data)))
    assert portrait.shape == (saved, saved, 3)
    small = np.asarray(Image.fromarray(portrait).resize((SIZE, SIZE)))
    edge = SIZE * (1 - INSET) / 2
    inner = Image.fromarray(drawing()).resize((SIZE, SIZE), box=(edge, edge, SIZE - edge, SIZE - edge))
    assert np.abs(small.astype(int) - np.asarray(inner).astype(int))[8:-8, 8:-8].mean() < 3


def test_a_portrait_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawing()
    face = Face(
        box=(10, 10, 110, 120), score=1.0, landmarks=face_for(Frame(corner=(0, 0), side=SIZE, degrees=0)).landmarks
    )
    monkeypatch.setattr(align, "detect", lambda _: [face])
    data = save_portrait("a.png", encode(Image.fromarray(image)), folder=str(tmp_path))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def test_an_image_without_a_face_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="no face was found"):
        save_portrait("a.png", encode(Image.new("RGB", (64, 64))), folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_map_is_projected_back_onto_the_frame() -> None:
    canvas, frame = paste_drawing(200, 20)
    box = bounding_box(frame, canvas)
    projected = project_back(np.full((SIZE, SIZE), 255, np.uint8), frame, box)
    assert projected.shape == (box[3] - box[1], box[2] - box[0])
    center = (frame.corners.mean(0) - box[:2]).astype(int)
    assert projected[center[1], center[0]] == 255
    assert projected[0, 0] == projected[-1, -1] == 0  # the corners of the box lie outside the rotated frame
    assert (projected > 127).mean() == pytest.approx(200**2 / projected.size, abs=0.02)
