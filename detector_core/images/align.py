"""An ordinary photo's face framed as an aligned portrait: the scale, rotation and centre that FFHQ's portraits have.

The eyes and the corners of the mouth, which the face detector finds, are brought to where they lie in an aligned
portrait by one similarity transform (scale, rotation, shift; no shear). The image is sampled once: reduced with
antialiasing where it is larger than the portrait, and interpolated bicubically. What lies beyond the border is
mirrored, as in FFHQ itself.

Source: T. Karras, S. Laine, T. Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", 2019
(FFHQ's alignment by eyes and mouth). The positions are the means over aligned portraits of the training split.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector_core.images.decode import Pixels
from detector_core.images.faces import Box, Face

CANONICAL: Final[NDArray[np.float64]] = np.array([[0.375, 0.4715], [0.625, 0.4715], [0.384, 0.7295], [0.616, 0.7295]])
"""x and y of the left and right eye and the left and right corner of the mouth, as fractions of a portrait's side."""
MAP_SIDE: Final = 512
"""Longest side of a map that is laid back over an image."""
USED: Final = (0, 1, 3, 4)
"""Of the detector's five landmarks; the tip of the nose moves with the pose and is left out."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a portrait lies in an image.

    Attributes:
        corner: x and y of its upper left corner, pixels.
        side: pixels.
        degrees: clockwise.
    """

    corner: tuple[float, float]
    side: float
    degrees: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """x and y of the four corners in pixels, clockwise from the upper left: (4, 2)."""
        angle = math.radians(self.degrees)
        right = np.array([math.cos(angle), math.sin(angle)]) * self.side
        down = np.array([-right[1], right[0]])
        first = np.array(self.corner)
        return np.array([first, first + right, first + right + down, first + down])


def portrait_frame(face: Face) -> Frame:
    """The frame of an aligned portrait around a face, from its landmarks by least squares."""
    points = np.asarray(face.landmarks, dtype=np.float64)[list(USED)]
    # x = a u - b v + c, y = b u + a v + d for u, v in CANONICAL.
    u, v = CANONICAL.T
    one, zero = np.ones_like(u), np.zeros_like(u)
    system = np.concatenate([np.stack([u, -v, one, zero], 1), np.stack([v, u, zero, one], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(system, points.T.reshape(-1), rcond=None)
    return Frame(corner=(float(c), float(d)), side=math.hypot(a, b), degrees=math.degrees(math.atan2(b, a)))


def extract_portrait(image_HWC: Pixels, frame: Frame, size: int) -> Pixels:
    """The content of a frame as a square of ``size`` pixels: image_SSC uint8."""
    height, width = image_HWC.shape[:2]
    scale = max(1.0, frame.side / size)
    corners = frame.corners
    # Only the surroundings of the frame are touched, so that a face in a large photo costs what the face costs.
    left, top = np.floor(corners.min(0) - 2 * scale).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(corners.max(0) + 2 * scale).astype(int).clip([left + 1, top + 1], [width, height])
    region = image_HWC[top:bottom, left:right]
    reduced = max(1, round((right - left) / scale)), max(1, round((bottom - top) / scale))
    if scale > 1:
        region = np.asarray(Image.fromarray(region).resize(reduced, Image.Resampling.BICUBIC))
    ratio = np.array([reduced[0] / (right - left), reduced[1] / (bottom - top)]) if scale > 1 else np.ones(2)
    # Pixel centres: 0.5 is the centre of the first pixel in every picture of the plane.
    source = ((corners[:3] - [left, top]) * ratio - 0.5).astype(np.float32)
    target = (np.array([[0, 0], [size, 0], [size, size]]) - 0.5).astype(np.float32)
    matrix = cv2.getAffineTransform(source, target)
    warped = cv2.warpAffine(
        np.ascontiguousarray(region), matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped, dtype=np.uint8)


def bounding_box(frame: Frame, image_HWC: Pixels) -> Box:
    """The upright box around a frame: left, top, right, bottom in pixels, cut at the image's border."""
    height, width = image_HWC.shape[:2]
    left, top = np.floor(frame.corners.min(0)).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(frame.corners.max(0)).astype(int).clip([left + 1, top + 1], [width, height])
    return int(left), int(top), int(right), int(bottom)


def project_back(grey_SS: NDArray[np.uint8], frame: Frame, box: Box) -> NDArray[np.uint8]:
    """A map of a portrait laid back over ``box`` of the image: grey_HW of at most MAP_SIDE pixels, 0 outside the frame.

    Args:
        grey_SS: a map of the portrait, such as a heat map.
        box: as :func:`bounding_box` gives it.
    """
    left, top, right, bottom = box
    scale = min(1.0, MAP_SIDE / max(right - left, bottom - top))
    width, height = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    side = grey_SS.shape[0]
    source = (np.array([[0, 0], [side, 0], [side, side]]) - 0.5).astype(np.float32)
    target = ((frame.corners[:3] - [left, top]) * scale - 0.5).astype(np.float32)
    matrix = cv2.getAffineTransform(source, target)
    placed = cv2.warpAffine(np.ascontiguousarray(grey_SS), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, dtype=np.uint8)
