"""Properties that make a score less reliable: a face that is small, blurred or dark, or a coarsely compressed file.

Each is a simple measurement with one threshold. They are shown as warnings and never change a score; only an image that
shows nothing gets none.
"""

from typing import Final

import cv2
import numpy as np
from PIL import Image

from detector_core.images.decode import Decoded, Pixels
from detector_core.images.faces import MIN_FACE_PX, Face, crop

SMALL_PX: Final = 80
"""A face with a shorter side is enlarged by half or more for a network of 128 px and has lost its finest traces."""
SHARPNESS_PX: Final = 96
"""Side to which a face is resized before its sharpness is measured, so that the result does not depend on its size."""
BLURRED_BELOW: Final = 60.0
DARK_BELOW: Final = 40.0
BLANK_BELOW: Final = 2.0
"""Standard deviation of an image's values, in gray levels, below which it shows nothing; noise alone has more."""
SAMPLED_PX: Final = 256
"""About how many rows and columns of an image are looked at for that."""
COARSE_QUALITY: Final = 60
"""A JPEG below this quality counts as recompressed; cameras write 90 and more, messengers about 70 and less."""

# The luminance table in annex K.1 of the JPEG standard, scaled by quality as libjpeg does it: one row per quality.
_STANDARD: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()
_QUALITIES: Final = np.arange(1, 101)
_SCALES: Final = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES: Final = np.clip((_STANDARD * _SCALES[:, None] + 50) // 100, 1, 255)


def face_flags(image_HWC: Pixels, face: Face) -> tuple[str, ...]:
    """Those of ``small``, ``blurred`` and ``dark`` that apply to a face."""
    gray_HW = np.asarray(Image.fromarray(crop(image_HWC, face, margin=0.0)).convert("L"))
    flags = {
        "small": face.side < SMALL_PX,
        "blurred": sharpness(gray_HW) < BLURRED_BELOW,
        "dark": float(gray_HW.mean()) < DARK_BELOW,
    }
    return tuple(name for name, applies in flags.items() if applies)


def file_flags(decoded: Decoded) -> tuple[str, ...]:
    """Those of ``recompressed``, ``metadata_dropped`` and ``animated`` that apply to the file of an image."""
    quality = jpeg_quality(decoded.quantization)
    flags = {
        "recompressed": quality is not None and quality < COARSE_QUALITY,
        "metadata_dropped": not decoded.metadata_intact,
        "animated": decoded.animated,
    }
    return tuple(name for name, applies in flags.items() if applies)


def square_flags(image_HWC: Pixels, image_size: int) -> tuple[str, ...]:
    """Those of ``upscaled`` and ``cropped`` that apply if a network of this input size gets the center square."""
    height, width = image_HWC.shape[:2]
    flags = {"upscaled": min(height, width) < image_size, "cropped": height != width}
    return tuple(name for name, applies in flags.items() if applies)


def shows_nothing(image_HWC: Pixels, image_size: int) -> str | None:
    """Why an image shows no face that could be scored: ``too_small`` or ``blank`` (one color); None if it may.

    Too small are images in which the face detector could not find any, unless the network takes images of such a size.
    """
    if min(image_HWC.shape[:2]) < min(MIN_FACE_PX, image_size // 2):
        return "too_small"
    step = max(1, min(image_HWC.shape[:2]) // SAMPLED_PX)
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(image_HWC[::step, ::step]))  # 35 times as fast as numpy's std
    return "blank" if float(deviation.max()) < BLANK_BELOW else None


def sharpness(gray_HW: Pixels) -> float:
    """Variance of the Laplacian at SHARPNESS_PX, normalized to a contrast (standard deviation) of 50 gray levels."""
    size = (SHARPNESS_PX, SHARPNESS_PX)
    small_HW = np.asarray(Image.fromarray(gray_HW).resize(size, Image.Resampling.BOX), dtype=np.float32)
    center = small_HW[1:-1, 1:-1]
    neighbors = small_HW[:-2, 1:-1] + small_HW[2:, 1:-1] + small_HW[1:-1, :-2] + small_HW[1:-1, 2:]
    contrast = max(float(small_HW.std()), 1.0)
    return float((neighbors - 4 * center).var()) * (50 / contrast) ** 2


def jpeg_quality(quantization: tuple[int, ...] | None) -> int | None:
    """The libjpeg quality, 1-100, whose luminance table is closest to that of a file; None unless it is a JPEG.

    Exact for files that libjpeg wrote.

    Args:
        quantization: see :class:`detector_core.images.decode.Decoded`.
    """
    if quantization is None:
        return None
    return int(_QUALITIES[np.abs(_TABLES - np.asarray(quantization)).sum(axis=1).argmin()])
