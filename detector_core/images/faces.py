"""Face detection, and square crops around faces.

The detector is MTCNN (Zhang et al. 2016), with which VGGFace2 was cropped: :mod:`detector_core.images.mtcnn`. It keeps
no state between images, so several threads can use it at once.

Its first network proposes places in the image, in passes from the smallest faces to the largest, and two slower
networks look at each proposal. So a crowd, or a pattern that resembles one, costs twenty times as much as a portrait.
Where there are too many proposals, only larger faces are searched. Images that are searched for one request share its
proposals, so that ten crowds cost little more than two.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector_core.images import mtcnn
from detector_core.images.decode import Pixels

MARGIN: Final = 0.36
"""Default margin of a crop, as a fraction of the face's longer side, half of it on each side.

FFHQ portraits have this margin: MTCNN's box takes up 73% of their side (median)."""
MIN_SCORE: Final = 0.95
"""Detections with a lower score are dropped."""
MIN_FACE_PX: Final = 40
"""Side of the smallest face that is detected, in pixels of the searched image; smaller faces show no traces."""
MAX_SEARCH_PX: Final = 1024
"""Larger images are searched at this longer side, which bounds time and memory."""
MAX_PROPOSALS: Final = 2000
"""Maximum number of proposals in one image: about thirty faces 128 px wide, and half a second of one core. A portrait
has 50 to 400, a photo of five people up to 750."""
MAX_SHARED_PROPOSALS, MIN_PROPOSALS = 12_000, 600
"""Proposals that the images of one request share, and how many each may have at least, however many there are."""
SIZE_STEP: Final = 2**0.5
"""Factor by which the smallest face grows until there are few enough proposals."""
PORTRAIT_COVERAGE: Final = 0.5
"""An image is an aligned portrait if the crop around its face covers at least this proportion of it. On 700 FFHQ and
StyleGAN portraits the crop covers at least 62%, and in half of them everything."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, inside the image."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """A detected face.

    Attributes:
        box: left, top, right, bottom in pixels; may extend beyond the image.
        score: confidence of the detector, 0-1.
        landmarks: x and y in pixels of the eyes, the nose and the corners of the mouth; shape (5, 2), float32.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]

    @property
    def side(self) -> float:
        """The longer side of the box in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


class Search(NamedTuple):
    """What a search found.

    Attributes:
        faces: the largest comes first.
        complete: whether faces of every size from MIN_FACE_PX on were searched; False in a crowd.
    """

    faces: list[Face]
    complete: bool


def detect(image_HWC: Pixels) -> list[Face]:
    """The faces in an image, the largest first; of a crowd, only the larger ones."""
    return search(image_HWC).faces


def search(image_HWC: Pixels, sharing: int = 1) -> Search:
    """Detects the faces in an image, and tells whether it looked for small ones too.

    Args:
        image_HWC: uint8 RGB.
        sharing: how many images, this one among them, share MAX_SHARED_PROPOSALS.
    """
    max_proposals = min(MAX_PROPOSALS, max(MIN_PROPOSALS, MAX_SHARED_PROPOSALS // sharing))
    height, width = image_HWC.shape[:2]
    scale = min(1.0, MAX_SEARCH_PX / max(height, width))
    size = round(width * scale), round(height * scale)
    smallest = float(MIN_FACE_PX)
    if min(size) < smallest:
        return Search([], complete=True)  # MTCNN fails on images smaller than its smallest face
    searched_HWC = np.asarray(Image.fromarray(image_HWC).resize(size))
    while (found := _find(searched_HWC, smallest, max_proposals)) is None:
        smallest *= SIZE_STEP
    faces = [
        Face(
            box=(left / scale, top / scale, right / scale, bottom / scale),
            score=score,
            landmarks=landmarks / np.float32(scale),
        )
        for (left, top, right, bottom, score), landmarks in zip(found.boxes.tolist(), found.landmarks, strict=True)
        if score >= MIN_SCORE
    ]
    return Search(sorted(faces, key=lambda face: -face.side), complete=smallest == MIN_FACE_PX)


def _find(image_HWC: Pixels, smallest: float, max_proposals: int) -> mtcnn.Detections | None:
    """The faces from a size on; None if there are too many proposals."""
    if min(image_HWC.shape[:2]) < smallest:
        return mtcnn.NOTHING
    try:
        return mtcnn.detect(image_HWC, smallest, max_proposals)
    except mtcnn.TooManyProposals:
        return None


def crop(image_HWC: Pixels, face: Face, margin: float = MARGIN) -> Pixels:
    """The square crop around a face, see :func:`crop_box`."""
    left, top, right, bottom = crop_box(image_HWC, face, margin)
    return image_HWC[top:bottom, left:right]


def crop_box(image_HWC: Pixels, face: Face, margin: float = MARGIN) -> Box:
    """The square around a face: left, top, right, bottom in pixels.

    The square is moved to lie inside the image, and shrunk if the image is smaller. Nothing is ever padded, because
    padding could separate the classes.

    Args:
        image_HWC: the image.
        face: the face, detected in this image.
        margin: fraction of the face's longer side to add, half of it on each side.
    """
    height, width = image_HWC.shape[:2]
    left, top, right, bottom = face.box
    side = max(1, min(round(face.side * (1 + margin)), height, width))
    x = round(min(max((left + right - side) / 2, 0), width - side))
    y = round(min(max((top + bottom - side) / 2, 0), height - side))
    return x, y, x + side, y + side


def fills_image(image_HWC: Pixels, face: Face) -> bool:
    """Whether an image is already an aligned portrait of a face, which a crop would only frame more tightly."""
    left, top, right, bottom = crop_box(image_HWC, face)
    height, width = image_HWC.shape[:2]
    return bool((right - left) * (bottom - top) >= PORTRAIT_COVERAGE * height * width)


def warm_up() -> None:
    """Loads the detector, so that later calls do not wait for it."""
    detect(np.full((2 * MIN_FACE_PX, 2 * MIN_FACE_PX, 3), 128, np.uint8))
