"""The preprocessing that training, evaluation and serving share: bytes -> image_HWC -> image_SSC -> x_CHW.

The steps are: decode (strict, with EXIF orientation, RGB); resize the center square to ``image_size``; normalize.
Training augments between the second and the third. The :class:`PreprocessSpec` that controls them is stored with the
weights. PyTorch is imported only where tensors are created, because a replica that serves with OpenVINO does not need
it.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from detector_core.config import PreprocessSpec
from detector_core.images.decode import MAX_PIXELS, Pixels, decode

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_PIXELS", "Pixels", "decode", "normalize", "square", "to_input"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def square(image_HWC: Pixels, spec: PreprocessSpec) -> Pixels:
    """Resizes the center square of an image to ``image_size``: image_SSC uint8."""
    height, width = image_HWC.shape[:2]
    side, size = min(height, width), spec.image_size
    if (height, width) == (size, size):
        return image_HWC
    left, top = (width - side) / 2, (height - side) / 2
    resized = Image.fromarray(image_HWC).resize(
        (size, size), _RESAMPLING[spec.interpolation], box=(left, top, left + side, top + side)
    )
    return np.asarray(resized)


def normalize(pixels_BSSC: "torch.Tensor", spec: PreprocessSpec) -> "torch.Tensor":
    """Converts a uint8 batch to the network's input x_BCHW float32, on the device of the batch.

    Channels are reordered if the spec says BGR, values are scaled to 0-1, and mean and std are applied.
    """
    import torch

    pixels = pixels_BSSC.flip(-1) if spec.channels == "BGR" else pixels_BSSC
    mean, std = (torch.tensor(values, device=pixels.device) for values in (spec.mean, spec.std))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def to_input(image_HWC: Pixels, spec: PreprocessSpec) -> "torch.Tensor":
    """Converts a decoded image to the network's input x_CHW float32, without augmentation."""
    import torch

    return normalize(torch.tensor(square(image_HWC, spec))[None], spec)[0]
