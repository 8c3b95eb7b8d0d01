"""The radial power spectrum of an image: what the frequencies of its pixels tell without looking at a face.

Generators that enlarge their feature maps leave too little or too much power in high frequencies, and so do resizing
and recompression. A model that separates no better than this has not learnt more.

Source: R. Durall, M. Keuper, J. Keuper, "Watch your up-convolution: CNN based generative deep neural networks are
failing to reproduce spectral distributions", 2020.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from detector_core.images.decode import Pixels

RINGS: Final = 32
"""Rings of equal width from frequency 0 to half of the sampling rate."""
MAX_SIDE: Final = 256
"""Side in pixels of the square in the center of an image that is transformed."""


def radial_spectrum(image_HWC: Pixels) -> NDArray[np.float32]:
    """The decadic logarithm of the mean power in each ring of frequencies, shape (RINGS,).

    Pixels are not resized, because that would change what is measured; an image that is smaller than MAX_SIDE has a
    smaller square, and the rings are fractions of the sampling rate.
    """
    gray_HW = np.asarray(Image.fromarray(image_HWC).convert("L"), dtype=np.float32)
    side = min(*gray_HW.shape, MAX_SIDE)
    top, left = ((length - side) // 2 for length in gray_HW.shape)
    square_SS = gray_HW[top : top + side, left : left + side]
    window_S, ring_SF, count_R = _rings(side)
    windowed = (square_SS - square_SS.mean()) * window_S[:, None] * window_S
    power_SF = np.square(np.abs(fft.rfft2(windowed, overwrite_x=True)))
    sum_R = np.bincount(ring_SF, power_SF.ravel(), minlength=RINGS + 1)[:RINGS]
    spectrum_R: NDArray[np.float32] = np.log10(sum_R / np.maximum(count_R, 1) / side**2 + 1e-3).astype(np.float32)
    return spectrum_R


@lru_cache(maxsize=16)
def _rings(side: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The window (side,), the ring of each frequency, RINGS for those in the corners, and the size of each ring."""
    window_S = np.hanning(side + 2)[1:-1].astype(np.float32)
    radius = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side))
    ring = np.minimum((radius * 2 * RINGS).astype(np.int64), RINGS).ravel()
    return window_S, ring, np.bincount(ring, minlength=RINGS + 1)[:RINGS]
