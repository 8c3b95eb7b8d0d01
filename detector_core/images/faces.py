"""Faces in an image: where they are, and a square crop around one.

MTCNN (Zhang et al. 2016) as facenet-pytorch ships it, weights included; it is what VGGFace2 was cropped with. It keeps
nothing between two images, so that several threads may search at once.
"""

import io
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector_core import storage
from detector_core.errors import BadImage
from detector_core.images.decode import Pixels, decode

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

MARGIN: Final = 0.36
"""Added to the face's longer side. FFHQ portraits are framed so: MTCNN's box fills 73 % of their side (median)."""
SURE: Final = 0.95
SMALLEST: Final = 40
"""Side of the smallest face that is looked for, pixels of the image as it is searched; less shows no traces."""
LARGEST: Final = 1024
"""Images with a longer side are searched at this size, which keeps time and memory bounded."""
FILLS: Final = 0.5
"""A face whose crop covers this share of an image is an aligned portrait: of 700 FFHQ and StyleGAN portraits the crop
covers 62 % or more, half of the time all."""

_LOADING = Lock()

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, inside the image."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face: ``box`` is (left, top, right, bottom) in pixels, ``score`` 0-1, ``landmarks`` (5, 2) x and y of eyes,
    nose and corners of the mouth."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]

    @property
    def side(self) -> float:
        """The longer side of the box, pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def detect(image_HWC: Pixels) -> list[Face]:
    """The faces in an image, the largest first; an empty list where there is none."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    size = round(width * scale), round(height * scale)
    if min(size) < SMALLEST:
        return []  # MTCNN raises on images smaller than its smallest face
    small = Image.fromarray(image_HWC).resize(size)
    boxes, scores, landmarks = _detector().detect(small, landmarks=True)
    if boxes is None:
        return []
    found = [
        Face(
            box=(box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale),
            score=float(score),
            landmarks=np.asarray(points, dtype=np.float32) / np.float32(scale),
        )
        for box, score, points in zip(np.asarray(boxes, dtype=float).tolist(), scores, landmarks, strict=True)
        if score >= SURE
    ]
    return sorted(found, key=lambda face: -face.side)


def crop(image_HWC: Pixels, face: Face, margin: float = MARGIN) -> Pixels:
    """The square around a face, see :func:`crop_box`."""
    left, top, right, bottom = crop_box(image_HWC, face, margin)
    return image_HWC[top:bottom, left:right]


def crop_box(image_HWC: Pixels, face: Face, margin: float = MARGIN) -> Box:
    """The square around a face, ``margin`` of its longer side added, half on each side.

    The square is moved into the image, and shrunk where the image is smaller; nothing is ever padded, because
    padding would tell one class from the other.
    """
    height, width = image_HWC.shape[:2]
    left, top, right, bottom = face.box
    side = max(1, min(round(face.side * (1 + margin)), height, width))
    x = round(min(max((left + right - side) / 2, 0), width - side))
    y = round(min(max((top + bottom - side) / 2, 0), height - side))
    return x, y, x + side, y + side


def fills_image(image_HWC: Pixels, face: Face) -> bool:
    """Whether an image is an aligned portrait of a face already, so that a crop would only narrow its frame."""
    left, top, right, bottom = crop_box(image_HWC, face)
    height, width = image_HWC.shape[:2]
    return bool((right - left) * (bottom - top) >= FILLS * height * width)


def warm_up() -> None:
    """Loads the detector, which takes seconds, so that no later call waits for it."""
    detect(np.full((2 * SMALLEST, 2 * SMALLEST, 3), 128, np.uint8))


def save_crop(path: str, data: bytes, *, folder: str, margin: float) -> bytes:
    """Cuts the largest face out of an image and writes it as ``folder/path.png``, without loss; returns the file.

    Raises:
        BadImage: not a whole image, or no face in it.
    """
    image_HWC = decode(data)
    faces = detect(image_HWC)
    if not faces:
        raise BadImage("no face was found")
    buffer = io.BytesIO()
    Image.fromarray(crop(image_HWC, faces[0], margin)).save(buffer, "PNG")
    storage.write_bytes(storage.join(folder, crop_name(path)), buffer.getvalue())
    return buffer.getvalue()


def crop_name(path: str) -> str:
    """Where the crop of an image is; the suffix is kept, so that ``a.jpg`` and ``a.webp`` have one each."""
    return f"{path}.png"


def _detector() -> "MTCNN":
    with _LOADING:
        return _loaded()


@cache
def _loaded() -> "MTCNN":
    from facenet_pytorch import MTCNN  # with PyTorch, which takes seconds

    return MTCNN(min_face_size=SMALLEST, keep_all=True).eval()
