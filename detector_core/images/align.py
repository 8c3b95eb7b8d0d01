"""Aligns a face in an ordinary photo to the scale, rotation and position of FFHQ's portraits.

One similarity transform (scale, rotation, shift; no shear) moves the eyes and the corners of the mouth, as located by
the face detector, to their mean positions in aligned portraits. Faces larger than the output are downscaled with
antialiasing first; the transform interpolates bicubically. Pixels beyond the image's border are mirrored, as in FFHQ.

Source: T. Karras, S. Laine, T. Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", 2019
(FFHQ's alignment by eyes and mouth). The mean positions were measured on aligned portraits of the training split.
"""

import io
import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector_core import storage
from detector_core.config import PreprocessSpec
from detector_core.errors import BadImage
from detector_core.images.decode import Pixels, decode
from detector_core.images.faces import Box, Face, detect, fills_image
from detector_core.images.preprocess import square

CANONICAL: Final[NDArray[np.float64]] = np.array([[0.375, 0.4715], [0.625, 0.4715], [0.384, 0.7295], [0.616, 0.7295]])
"""x and y of the left and right eye and the left and right corner of the mouth, as fractions of a portrait's side."""
MAX_PORTRAIT: Final = 1024
"""Maximum side of a portrait that keeps the scale of its image, in pixels, as in FFHQ."""
MAP_SIDE: Final = 512
"""Longest side of a heat map that is projected back onto an image, pixels."""
LANDMARKS_USED: Final = (0, 1, 3, 4)
"""Indices of the detector's landmarks: all but the tip of the nose, which moves with the pose."""
FRAME_PER_FACE: Final = 1.38
"""Side of a portrait divided by the longer side of its face: the median of 61 portraits (from 1.26 to 1.56)."""
PLAUSIBLE_RATIO: Final = (0.5, 4.0)
"""Accepted range of FRAME_PER_FACE; landmarks that yield another ratio are ignored."""
INSET: Final = 0.93
"""Side of a frame divided by that of the portrait FFHQ would cut. Landmarks are a few percent off, and a frame that
reaches beyond a portrait pasted onto a page contains its edge, which a network takes for a trace (docs/measured.md,
"Faces in larger images")."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A rotated square in an image.

    Attributes:
        corner: x and y of the upper left corner in pixels.
        side: side in pixels.
        degrees: rotation, clockwise.
    """

    corner: tuple[float, float]
    side: float
    degrees: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """x and y of the four corners in pixels, clockwise from the upper left; shape (4, 2)."""
        angle = math.radians(self.degrees)
        right = np.array([math.cos(angle), math.sin(angle)]) * self.side
        down = np.array([-right[1], right[0]])
        corner = np.array(self.corner)
        return np.array([corner, corner + right, corner + right + down, corner + down])

    def scaled(self, factor: float) -> "Frame":
        """The frame with the same center and a side multiplied by ``factor``."""
        corner, center = np.array(self.corner), self.corners.mean(0)
        x, y = center + factor * (corner - center)
        return Frame(corner=(float(x), float(y)), side=factor * self.side, degrees=self.degrees)


def portrait_frame(face: Face) -> Frame:
    """The frame that aligns a face like a portrait, fitted to its landmarks by least squares, then scaled by INSET.

    If the landmarks contradict the box of the face, the frame is upright and centered on the box.
    """
    points = np.asarray(face.landmarks, dtype=np.float64)[list(LANDMARKS_USED)]
    # Solves x = a u - b v + c, y = b u + a v + d for a, b, c, d, with u, v from CANONICAL.
    u, v = CANONICAL.T
    ones, zeros = np.ones_like(u), np.zeros_like(u)
    system = np.concatenate([np.stack([u, -v, ones, zeros], 1), np.stack([v, u, zeros, ones], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(system, points.T.reshape(-1), rcond=None)
    frame = Frame(corner=(float(c), float(d)), side=math.hypot(a, b), degrees=math.degrees(math.atan2(b, a)))
    left, top, right, bottom = face.box
    x, y = frame.corners.mean(0)
    is_plausible = (
        PLAUSIBLE_RATIO[0] <= frame.side / max(1, face.side) <= PLAUSIBLE_RATIO[1]
        and left < x < right
        and top < y < bottom
    )
    return (frame if is_plausible else _upright_frame(face)).scaled(INSET)


def _upright_frame(face: Face) -> Frame:
    left, top, right, bottom = face.box
    side = FRAME_PER_FACE * max(1, face.side)
    return Frame(corner=((left + right - side) / 2, (top + bottom - side) / 2), side=side, degrees=0.0)


def extract_portrait(image_HWC: Pixels, frame: Frame, size: int) -> Pixels:
    """Cuts a frame out of an image as an upright square: image_SSC uint8, ``size`` pixels a side."""
    height, width = image_HWC.shape[:2]
    scale = max(1.0, frame.side / size)
    corners = frame.corners
    # Only the region around the frame is processed: the cost depends on the size of the face, not of the photo.
    left, top = np.floor(corners.min(0) - 2 * scale).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(corners.max(0) + 2 * scale).astype(int).clip([left + 1, top + 1], [width, height])
    region = image_HWC[top:bottom, left:right]
    region_size = max(1, round((right - left) / scale)), max(1, round((bottom - top) / scale))
    if scale > 1:
        region = np.asarray(Image.fromarray(region).resize(region_size, Image.Resampling.BICUBIC))
    ratio = np.array([region_size[0] / (right - left), region_size[1] / (bottom - top)]) if scale > 1 else np.ones(2)
    # OpenCV puts the center of the first pixel at 0; in the coordinates used here it is at 0.5.
    source = ((corners[:3] - [left, top]) * ratio - 0.5).astype(np.float32)
    target = (np.array([[0, 0], [size, 0], [size, size]]) - 0.5).astype(np.float32)
    matrix = cv2.getAffineTransform(source, target)
    warped = cv2.warpAffine(
        np.ascontiguousarray(region), matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped, dtype=np.uint8)


def bounding_box(frame: Frame, image_HWC: Pixels) -> Box:
    """The axis-aligned box around a frame: left, top, right, bottom in pixels, clipped to the image."""
    height, width = image_HWC.shape[:2]
    left, top = np.floor(frame.corners.min(0)).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(frame.corners.max(0)).astype(int).clip([left + 1, top + 1], [width, height])
    return int(left), int(top), int(right), int(bottom)


def project_back(gray_SS: NDArray[np.uint8], frame: Frame, box: Box) -> NDArray[np.uint8]:
    """Projects a map of a portrait back onto ``box`` of the image it was cut from.

    Args:
        gray_SS: a map of the portrait, such as a heat map, uint8.
        frame: the frame of the portrait.
        box: the result of :func:`bounding_box`.

    Returns:
        gray_HW uint8 with the aspect ratio of ``box``, at most MAP_SIDE pixels a side, 0 outside the frame.
    """
    left, top, right, bottom = box
    scale = min(1.0, MAP_SIDE / max(right - left, bottom - top))
    width, height = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    side = gray_SS.shape[0]
    source = (np.array([[0, 0], [side, 0], [side, side]]) - 0.5).astype(np.float32)
    target = ((frame.corners[:3] - [left, top]) * scale - 0.5).astype(np.float32)
    matrix = cv2.getAffineTransform(source, target)
    projected = cv2.warpAffine(np.ascontiguousarray(gray_SS), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(projected, dtype=np.uint8)


def align_face(image_HWC: Pixels, face: Face, size: int) -> Pixels:
    """Aligns a face like the portraits that networks are trained on: image_SSC uint8.

    If the image is already an aligned portrait, its center square is used.

    Args:
        image_HWC: the image.
        face: the face, detected in this image.
        size: side of the result in pixels; 0 keeps the scale of the image, up to MAX_PORTRAIT.
    """
    if fills_image(image_HWC, face):
        height, width = image_HWC.shape[:2]
        side = min(height, width)
        return square(image_HWC, PreprocessSpec(image_size=size or min(side, MAX_PORTRAIT)))
    frame = portrait_frame(face)
    return extract_portrait(image_HWC, frame, size or min(max(1, round(frame.side)), MAX_PORTRAIT))


def save_portrait(path: str, data: bytes, *, folder: str) -> bytes:
    """Aligns the largest face of an image, saves it losslessly as ``folder/path.png``, and returns that file's bytes.

    Args:
        path: relative path of the image.
        data: the bytes of the image.
        folder: folder or URI of the portraits.

    Raises:
        BadImage: the bytes are not a complete image, or it has no face.
    """
    image_HWC = decode(data)
    faces = detect(image_HWC)
    if not faces:
        raise BadImage("no face was found")
    buffer = io.BytesIO()
    Image.fromarray(align_face(image_HWC, faces[0], size=0)).save(buffer, "PNG")
    storage.write_bytes(storage.join(folder, portrait_name(path)), buffer.getvalue())
    return buffer.getvalue()


def save_as_read(path: str, data: bytes, *, folder: str, generated: bool) -> bytes:
    """Saves what networks read of an image under :func:`portrait_name`, and returns that file's bytes.

    Args:
        path, data, folder: see :func:`save_portrait`.
        generated: whole images are read, as of demo data; otherwise the largest face is cut out.

    Raises:
        BadImage: see :func:`save_portrait`.
    """
    if not generated:
        return save_portrait(path, data, folder=folder)
    decode(data)  # what is no image is refused here
    storage.write_bytes(storage.join(folder, portrait_name(path)), data)
    return data


def portrait_name(path: str) -> str:
    """The relative path of an image's portrait; the suffix is kept, so those of ``a.jpg`` and ``a.webp`` differ."""
    return f"{path}.png"
