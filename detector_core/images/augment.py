"""Random changes of a training image, and the paper's cut-out.

Both pipelines in one place, on image_SSC uint8 (square, already at the network's size)::

    train:  mirror -> rotate, shift, zoom -> random crop -> brightness, contrast -> delivery -> cut-out -> normalise
    valid:                                                                                                 normalise

The amounts are fields of :class:`AugmentSpec`; the paper names no amounts, so the defaults are moderate: no JPEG,
blur or resampling noise by default, since the traces a generator leaves live in fine texture.

``delivery`` is what happens to an image between a camera or a generator and whoever receives it, in that order: the
frame of the face is a little off, the image is reduced and enlarged again by one of several filters, blurred, gets
noise, is brightened or darkened, and is compressed as JPEG (quality 35 to 95) or WebP. Each change of :func:`delivery`
has a probability of its own, so that part of the images passes unchanged.

Cut-out is albumentations' ``CoarseDropout`` with one square patch of zeros, set before normalisation as the paper's
Fig. 3 shows it (black). Its patch always lies wholly inside the image; DeVries and Taylor (arXiv:1708.04552) centre
theirs anywhere and clip it at the border, so theirs hides less on average near the edges. They also hide a patch in
every image; ours does so with probability ``cutout``.

Each image's changes are drawn from (seed, epoch, index of the image) alone, so they do not depend on the order of
loading, on the number of workers, or on where a run was resumed.
"""

import albumentations as A
import cv2
import numpy as np

from detector_core.config import AugmentSpec
from detector_core.images.decode import Pixels

RESCALED = (0.45, 0.95)
"""Smallest and largest size, as a fraction, to which delivery reduces an image before it is enlarged again."""
FILTERS = (
    (cv2.INTER_AREA, cv2.INTER_CUBIC),
    (cv2.INTER_LINEAR, cv2.INTER_LINEAR),
    (cv2.INTER_AREA, cv2.INTER_LANCZOS4),
)
"""Of reducing and of enlarging."""
ZOOMED, MOVED = (1.0, 1.25), (-0.05, 0.05)
"""How far a frame may be off: zoomed in, and moved by a fraction of the side."""


def delivery(probability: float) -> list[A.BasicTransform]:
    """The changes of images on their way, in order; ``probability`` scales each change's own."""
    return [
        A.Affine(
            scale=ZOOMED,
            translate_percent=MOVED,
            interpolation=cv2.INTER_CUBIC,
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.2 * probability,
        ),
        *(
            A.Downscale(RESCALED, interpolation_pair={"downscale": down, "upscale": up}, p=0.1 * probability)
            for down, up in FILTERS
        ),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.6), p=0.2 * probability),
        A.GaussNoise(std_range=(0.005, 0.03), p=0.1 * probability),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.25 * probability),
        A.ImageCompression("jpeg", quality_range=(35, 95), p=0.5 * probability),
        A.ImageCompression("webp", quality_range=(40, 95), p=0.1 * probability),
    ]


class Augment:
    """``augment(image_SSC, key)`` -> image_SSC uint8, the same for the same key; smaller where the spec has a crop."""

    def __init__(self, spec: AugmentSpec) -> None:
        geometry = A.Affine(
            rotate=(-spec.rotate_degrees, spec.rotate_degrees),
            translate_percent=(-spec.shift, spec.shift),
            scale=(1 - spec.zoom, 1 + spec.zoom),
            border_mode=2,  # mirrored at the border: no black corners, which would look like cut-out
            p=1.0,
        )
        light = A.RandomBrightnessContrast(brightness_limit=spec.brightness, contrast_limit=spec.contrast, p=1.0)
        hole = (spec.cutout_size, spec.cutout_size)
        patch = A.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=hole, hole_width_range=hole, fill=0, p=spec.cutout
        )
        table = [
            (A.HorizontalFlip(p=spec.flip), spec.flip > 0),
            (geometry, bool(spec.rotate_degrees or spec.shift or spec.zoom)),
            (A.RandomCrop(spec.crop or 1, spec.crop or 1), spec.crop > 0),
            (light, bool(spec.brightness or spec.contrast)),
            *((transform, spec.delivery > 0) for transform in delivery(spec.delivery)),
            (patch, spec.cutout > 0),
        ]
        self.pipeline = A.Compose([transform for transform, used in table if used])

    def __call__(self, image_SSC: Pixels, key: tuple[int, ...]) -> Pixels:
        # Compose.set_random_seed gives every transform the same seed, which ties their draws together.
        seeds = np.random.SeedSequence(key).generate_state(max(1, len(self.pipeline.transforms)))
        for transform, seed in zip(self.pipeline.transforms, seeds, strict=False):
            transform.set_random_seed(int(seed))
        changed: Pixels = self.pipeline(image=image_SSC)["image"]
        return changed
