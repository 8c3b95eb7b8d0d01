"""Faces as the face detector would return them, for tests that replace it."""

import numpy as np

from detector_core.images.align import CANONICAL
from detector_core.images.faces import Face

BOX_OF_FRAME = 0.73
"""MTCNN's box covers about this fraction of the side of an aligned portrait."""


def make_face(left: float, top: float, side: float, score: float = 0.99) -> Face:
    """An upright face whose aligned portrait is the square of ``side`` pixels with this upper left corner."""
    margin = side * (1 - BOX_OF_FRAME) / 2
    eyes_and_mouth = np.array([left, top]) + CANONICAL * side
    nose = eyes_and_mouth.mean(0)
    return Face(
        box=(left + margin, top + margin, left + side - margin, top + side - margin),
        score=score,
        landmarks=np.insert(eyes_and_mouth, 2, nose, axis=0).astype(np.float32),
    )
