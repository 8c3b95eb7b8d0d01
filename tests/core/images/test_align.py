"""detector_core.images.align: a face at any scale, rotation and place comes back as the portrait it was cut from."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.images.align import CANONICAL, Frame, extract_portrait, portrait_frame
from detector_core.images.decode import Pixels
from detector_core.images.faces import Face

SIZE = 128


def drawn(side: int = SIZE) -> Pixels:
    """A smooth picture without a symmetry, so that a wrong turn or a mirror image shows."""
    y, x = np.mgrid[0:side, 0:side] / side
    red = 128 + 80 * np.sin(5 * x + 2 * y)
    green = 128 + 80 * np.cos(4 * y - x)
    return np.stack([red, green, 255 * x * y], axis=-1).astype(np.uint8)


def pasted(side: float, degrees: float, canvas: int = 700) -> tuple[Pixels, Frame]:
    """The drawing on a grey canvas, and where it lies."""
    frame = Frame(corner=(canvas / 2 - side / 3, canvas / 3), side=side, degrees=degrees)
    source = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE]], np.float32) - 0.5
    target = frame.corners[:3].astype(np.float32) - 0.5
    grey = np.full((canvas, canvas, 3), 128, np.uint8)
    matrix = cv2.getAffineTransform(source, target)
    cv2.warpAffine(
        drawn(), matrix, (canvas, canvas), dst=grey, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_TRANSPARENT
    )
    return grey, frame


def face_in(frame: Frame) -> Face:
    """A face whose landmarks are exactly those of a portrait in the frame."""
    right, down = frame.corners[1] - frame.corners[0], frame.corners[3] - frame.corners[0]
    eyes_and_mouth = frame.corners[0] + CANONICAL @ np.stack([right, down])
    nose = eyes_and_mouth.mean(0) + 40  # anywhere: it is not used
    landmarks = np.insert(eyes_and_mouth, 2, nose, axis=0).astype(np.float32)
    return Face(box=(0, 0, 1, 1), score=1.0, landmarks=landmarks)


@given(side=st.floats(20, 4000), degrees=st.floats(-179, 179), x=st.floats(-500, 5000), y=st.floats(-500, 5000))
def test_the_frame_is_found_from_the_landmarks(side: float, degrees: float, x: float, y: float) -> None:
    frame = Frame(corner=(x, y), side=side, degrees=degrees)
    found = portrait_frame(face_in(frame))
    assert found.side == pytest.approx(side, rel=1e-2)
    assert math.remainder(found.degrees - degrees, 360) == pytest.approx(0, abs=1)
    assert np.abs(found.corners - frame.corners).max() < 0.02 * side + 0.1


@pytest.mark.parametrize("side", [90, 128, 200, 400])
@pytest.mark.parametrize("degrees", [0, 25, -25])
def test_the_portrait_comes_back(side: int, degrees: float) -> None:
    canvas, frame = pasted(side, degrees)
    found = extract_portrait(canvas, frame, SIZE)
    inner = slice(8, -8)  # the border is blended with the canvas
    difference = np.abs(found.astype(int) - drawn().astype(int))[inner, inner]
    assert found.shape == (SIZE, SIZE, 3)
    assert difference.mean() < 2


def test_a_frame_that_is_the_whole_image_changes_nothing() -> None:
    image = drawn()
    same = extract_portrait(image, Frame(corner=(0, 0), side=SIZE, degrees=0), SIZE)
    assert np.abs(same.astype(int) - image.astype(int)).max() <= 1


def test_what_lies_beyond_the_border_is_mirrored_not_black() -> None:
    bright = np.full((200, 200, 3), 200, np.uint8)
    found = extract_portrait(bright, Frame(corner=(-60, -60), side=150, degrees=10), SIZE)
    assert found.min() >= 198


def test_a_large_face_is_reduced_without_aliasing() -> None:
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (512, 512))
    checkerboard = np.repeat(fine[..., None], 3, axis=2)
    found = extract_portrait(checkerboard, Frame(corner=(100, 100), side=800, degrees=5), 100)
    assert found.std() < 8  # a grey plane; without antialiasing the checks would survive as a moire pattern
