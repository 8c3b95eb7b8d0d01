"""Augmentation of training images, including the paper's cut-out.

The pipelines of training and validation, on image_SSC uint8 (square, already at the network's size)::

    train:  flip -> rotate, shift, zoom -> random crop -> brightness, contrast -> delivery -> cut-out -> normalize
    valid:                                                                                               normalize

The amounts are fields of :class:`AugmentSpec`. The paper gives none, so the defaults are moderate: no JPEG
compression, blur or resampling noise, because the traces of a generator are in the fine texture.

``delivery`` simulates what happens to an image between a camera or generator and its recipient, in this order: the
face is framed imprecisely, the image is downscaled and upscaled again with one of several filters, blurred, gets noise,
is brightened or darkened, and is compressed as JPEG (quality 35 to 95) or WebP. Each change has its own probability, so
some of the images pass unchanged.

Cut-out is albumentations' ``CoarseDropout`` with one square patch of zeros, applied before normalization, as the
paper's Fig. 3 shows (black). The patch always lies completely inside the image, whereas DeVries and Taylor
(arXiv:1708.04552) center it anywhere and clip it at the border, which hides less near the edges. They also hide a patch
in every image; here the probability is ``cutout``.

The changes of each image depend only on (seed, epoch, index of the image), not on the order of loading, the number of
workers, or where a run was resumed.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from detector_core.config import AugmentSpec
from detector_core.images.decode import Pixels

if TYPE_CHECKING:
    import albumentations as A

DOWNSCALE = (0.45, 0.95)
"""Minimum and maximum scale to which delivery reduces an image before it is enlarged again."""
FILTERS = (
    (cv2.INTER_AREA, cv2.INTER_CUBIC),
    (cv2.INTER_LINEAR, cv2.INTER_LINEAR),
    (cv2.INTER_AREA, cv2.INTER_LANCZOS4),
)
"""Pairs of filters: for downscaling and for upscaling."""
FRAMING_ZOOM, FRAMING_SHIFT = (1.0, 1.25), (-0.05, 0.05)
"""Ranges of imprecise framing: zoom, and shift as a fraction of the side."""


def delivery(probability: float) -> "list[A.BasicTransform]":
    """The changes of images between sender and recipient, in order; ``probability`` scales that of each change."""
    import albumentations as A  # takes most of a second, and of all processes only training workers augment

    return [
        A.Affine(
            scale=FRAMING_ZOOM,
            translate_percent=FRAMING_SHIFT,
            interpolation=cv2.INTER_CUBIC,
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.2 * probability,
        ),
        *(
            A.Downscale(DOWNSCALE, interpolation_pair={"downscale": down, "upscale": up}, p=0.1 * probability)
            for down, up in FILTERS
        ),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.6), p=0.2 * probability),
        A.GaussNoise(std_range=(0.005, 0.03), p=0.1 * probability),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.25 * probability),
        A.ImageCompression("jpeg", quality_range=(35, 95), p=0.5 * probability),
        A.ImageCompression("webp", quality_range=(40, 95), p=0.1 * probability),
    ]


class Augment:
    """``augment(image_SSC, key)`` -> image_SSC uint8; the same image and key give the same result.

    If the spec has a crop, the result has the crop's size.
    """

    def __init__(self, spec: AugmentSpec) -> None:
        import albumentations as A

        geometry = A.Affine(
            rotate=(-spec.rotate_degrees, spec.rotate_degrees),
            translate_percent=(-spec.shift, spec.shift),
            scale=(1 - spec.zoom, 1 + spec.zoom),
            border_mode=cv2.BORDER_REFLECT,  # no black corners, which would look like cut-out
            p=1.0,
        )
        brightness = A.RandomBrightnessContrast(brightness_limit=spec.brightness, contrast_limit=spec.contrast, p=1.0)
        side = (spec.cutout_size, spec.cutout_size)
        cutout = A.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, fill=0, p=spec.cutout
        )
        table = [
            (A.HorizontalFlip(p=spec.flip), spec.flip > 0),
            (geometry, bool(spec.rotate_degrees or spec.shift or spec.zoom)),
            (A.RandomCrop(spec.crop or 1, spec.crop or 1), spec.crop > 0),
            (brightness, bool(spec.brightness or spec.contrast)),
            *((transform, spec.delivery > 0) for transform in delivery(spec.delivery)),
            (cutout, spec.cutout > 0),
        ]
        self.pipeline = A.Compose([transform for transform, enabled in table if enabled])

    def __call__(self, image_SSC: Pixels, key: tuple[int, ...]) -> Pixels:
        # Compose.set_random_seed would give every transform the same seed, so their random numbers would be equal.
        seeds = np.random.SeedSequence(key).generate_state(max(1, len(self.pipeline.transforms)))
        for transform, seed in zip(self.pipeline.transforms, seeds, strict=False):
            transform.set_random_seed(int(seed))
        augmented: Pixels = self.pipeline(image=image_SSC)["image"]
        return augmented
