"""What makes a verdict less sure: a face too small, blurred or dark, a file whose traces were compressed away.

Each is a plain measure with one limit. They warn a reader and never change a score.
"""

import io
from typing import Final

import numpy as np
from PIL import Image

from detector_core.images.decode import Pixels
from detector_core.images.faces import Face, crop

SMALL_PX: Final = 80
"""A face below this side is enlarged by half or more for a network of 128 px and has lost its finest traces."""
SHARPNESS_PX: Final = 96
"""Side at which sharpness is measured, so that it does not depend on how large the face is."""
BLURRED_BELOW: Final = 60.0
DARK_BELOW: Final = 40.0
COARSE_QUALITY: Final = 60
"""A JPEG below this quality counts as recompressed; cameras write 90 and more, messengers about 70 and less."""

# Annex K of the JPEG standard: mean of the luminance table at quality 50.
_MEAN_AT_50: Final = 57.625


def face_flags(image_HWC: Pixels, face: Face) -> tuple[str, ...]:
    """Which of ``small``, ``blurred`` and ``dark`` a face is."""
    grey_HW = np.asarray(Image.fromarray(crop(image_HWC, face, margin=0.0)).convert("L"))
    found = {
        "small": face.side < SMALL_PX,
        "blurred": sharpness(grey_HW) < BLURRED_BELOW,
        "dark": float(grey_HW.mean()) < DARK_BELOW,
    }
    return tuple(name for name, holds in found.items() if holds)


def sharpness(grey_HW: Pixels) -> float:
    """Variance of the Laplacian at SHARPNESS_PX a side, for a contrast (standard deviation) of 50 grey levels."""
    size = (SHARPNESS_PX, SHARPNESS_PX)
    small_HW = np.asarray(Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX), dtype=np.float32)
    centre = small_HW[1:-1, 1:-1]
    around = small_HW[:-2, 1:-1] + small_HW[2:, 1:-1] + small_HW[1:-1, :-2] + small_HW[1:-1, 2:]
    contrast = max(float(small_HW.std()), 1.0)
    return float((around - 4 * centre).var()) * (50 / contrast) ** 2


def is_recompressed(data: bytes) -> bool:
    """Whether a file is a JPEG with quantisation so coarse that fine traces are lost; other formats never are."""
    quality = jpeg_quality(data)
    return quality is not None and round(quality) < COARSE_QUALITY


def jpeg_quality(data: bytes) -> float | None:
    """The quality, 1 to 100, at which libjpeg's luminance table would be as coarse as this file's; None if no JPEG."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            tables = getattr(image, "quantization", None)
    except (OSError, SyntaxError, ValueError):
        return None
    if not tables:
        return None
    scale = 100 * float(np.mean(tables[min(tables)])) / _MEAN_AT_50
    return max(1.0, 5000 / scale if scale > 100 else 100 - scale / 2)
