"""A generator that a model never saw: an encoder-decoder that repaints photographs from a small code.

The encoder is a linear projection of overlapping patches onto their main components, fitted on the given photographs;
the decoder is its transpose, a strided up-convolution whose overlaps are averaged, as in the last layer of many image
generators. A little seeded noise in the code makes every image another one. What it paints looks like a slightly soft
portrait, and its traces are those of its own decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from detector_core.images.decode import Pixels

PATCH, STRIDE, COMPONENTS = 16, 8, 64
NOISE = 0.05
"""Standard deviation of the noise in the code, relative to that of each component."""


@dataclass(frozen=True, kw_only=True)
class SecondGenerator:
    """A fitted encoder-decoder.

    Attributes:
        mean_P: mean patch, P = 3 x PATCH x PATCH values from 0 to 1.
        component_KP: orthonormal main components.
        deviation_K: standard deviation of the code.
    """

    mean_P: torch.Tensor
    component_KP: torch.Tensor
    deviation_K: torch.Tensor

    @classmethod
    def fit(cls, photographs: Sequence[Pixels], components: int = COMPONENTS) -> "SecondGenerator":
        """Fits the encoder on image_SSC uint8, all of the same size."""
        patch_NP = torch.cat([_patches(photograph)[::7] for photograph in photographs])
        mean_P = patch_NP.mean(0)
        centered_NP = patch_NP - mean_P
        value_P, vector_PP = torch.linalg.eigh(centered_NP.T @ centered_NP / len(centered_NP))
        order = torch.argsort(value_P, descending=True)[:components]
        deviation_K = value_P[order].clamp_min(0).sqrt()
        return cls(mean_P=mean_P, component_KP=vector_PP[:, order].T.contiguous(), deviation_K=deviation_K)

    def repaint(self, photograph: Pixels, seed: int) -> Pixels:
        """A generated image_SSC uint8 after a photograph; the same for the same seed."""
        code_NK = (_patches(photograph) - self.mean_P) @ self.component_KP.T
        noise_NK = torch.from_numpy(np.random.default_rng(seed).standard_normal(code_NK.shape).astype(np.float32))
        patch_NP = (code_NK + NOISE * self.deviation_K * noise_NK) @ self.component_KP + self.mean_P
        size = photograph.shape[:2]
        painted = functional.fold(patch_NP.T[None], size, PATCH, stride=STRIDE)
        overlaps = functional.fold(torch.ones_like(patch_NP).T[None], size, PATCH, stride=STRIDE)
        image_HWC = (painted / overlaps)[0].permute(1, 2, 0).numpy()
        return (255 * image_HWC).clip(0, 255).round().astype(np.uint8)


def _patches(photograph: Pixels) -> torch.Tensor:
    """patch_NP float32 from 0 to 1."""
    image_BCHW = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None].float() / 255
    return functional.unfold(image_BCHW, PATCH, stride=STRIDE)[0].T
