"""MTCNN in numpy: finds faces without PyTorch, whose import takes seconds and hundreds of megabytes.

Three small networks look at an image in turn. The first proposes places of a face, in passes from the smallest faces to
the largest; the second and the third see each proposal, reject most, and correct the box. It keeps no state between
images, so several threads can use it at once, and every image is computed on the thread that asks.

The weights are those of facenet-pytorch (:mod:`detector_core.images.mtcnn_weights`). What is found equals what
facenet-pytorch finds, to a thousandth of a pixel.

Source: Zhang et al., Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016; what
the paper leaves open is done as in facenet-pytorch.
"""

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detector_core.images import mtcnn_weights
from detector_core.images.decode import Pixels

THRESHOLDS: Final = (0.6, 0.7, 0.7)
"""Lowest score that passes each of the networks."""
SCALE_STEP: Final = 0.709
"""Factor between the image's scales in two passes of the first network."""
SIDES: Final = (12, 24, 48)
"""Sides of what the networks see, in pixels."""
STRIDE: Final = 2
"""Distance of two places that the first network looks at, in pixels of its input."""
BATCH: Final = 128
"""Proposals in one pass of the second or third network, which bounds memory."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class TooManyProposals(Exception):
    """The first network has proposed more places than were allowed."""


class Detections(NamedTuple):
    """Faces in no particular order.

    Attributes:
        boxes: left, top, right, bottom in pixels and the score, 0-1; shape (N, 5).
        landmarks: x and y in pixels of the eyes, the nose and the corners of the mouth; shape (N, 5, 2).
    """

    boxes: Floats
    landmarks: Floats


NOTHING: Final = Detections(np.zeros((0, 5), np.float32), np.zeros((0, 5, 2), np.float32))


def detect(image_HWC: Pixels, smallest: float, max_proposals: int) -> Detections:
    """Finds the faces in an image.

    Args:
        image_HWC: uint8 RGB, at least ``smallest`` on each side.
        smallest: side of the smallest face, in pixels.
        max_proposals: how many places the first network may propose, before overlapping ones are joined.

    Raises:
        TooManyProposals: there are more.
        WeightsUnavailable: see :func:`detector_core.images.mtcnn_weights.load`.
    """
    height, width = image_HWC.shape[:2]
    sums = np.zeros((height + 1, width + 1, 3), np.uint32)  # of all pixels above and to the left; differences are exact
    np.cumsum(np.cumsum(image_HWC, 0, dtype=np.uint32), 1, dtype=np.uint32, out=sums[1:, 1:])
    with np.errstate(over="ignore", invalid="ignore"):  # of scores that are 0 or 1, and of empty boxes
        boxes = _propose(sums, smallest, max_proposals)
        boxes, corrections, _ = _look(sums, boxes, SIDES[1], THRESHOLDS[1])
        kept = _suppress(boxes, 0.7)
        boxes = _squared(_corrected(boxes[kept], corrections[kept]))
        boxes, corrections, points = _look(sums, boxes, SIDES[2], THRESHOLDS[2])
        sides = _sides(boxes)
        landmarks = np.stack([points[:, :5], points[:, 5:]], axis=2) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _corrected(boxes, corrections)
        kept = _suppress(boxes, 0.7, of_smaller=True)
    return Detections(boxes[kept], landmarks[kept])


def _propose(sums: npt.NDArray[np.uint32], smallest: float, max_proposals: int) -> Floats:
    """Squares in which the first network sees a face, with their scores: (N, 5). Raises TooManyProposals."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    whole = np.array([[0, 0, width, height]])
    scale, proposals = SIDES[0] / smallest, [np.zeros((0, 9), np.float32)]
    while min(height, width) * scale >= SIDES[0]:
        x_1HWC = _resampled(sums, whole, int(height * scale + 1), int(width * scale + 1))
        corrections_1HW4, scores_1HW = _first_network(x_1HWC)
        y, x = np.nonzero(scores_1HW[0] >= THRESHOLDS[0])
        max_proposals -= len(y)
        if max_proposals < 0:
            raise TooManyProposals
        corner = STRIDE * np.stack([x, y], 1).astype(np.float32)
        corners = np.floor((corner + 1) / scale), np.floor((corner + SIDES[0]) / scale)
        found = np.concatenate([*corners, scores_1HW[0, y, x][:, None], corrections_1HW4[0, y, x]], 1, dtype=np.float32)
        proposals.append(found[_suppress(found, 0.5)])
        scale *= SCALE_STEP
    joined = np.concatenate(proposals)
    joined = joined[_suppress(joined, 0.7)]
    return _squared(_corrected(joined[:, :5], joined[:, 5:], extra=0))


def _look(sums: npt.NDArray[np.uint32], boxes: Floats, side: int, threshold: float) -> tuple[Floats, Floats, Floats]:
    """Shows boxes to the second or third network; the boxes that pass with their scores, corrections and landmarks."""
    inside = boxes[:, :4].astype(np.int64)
    inside[:, :2] = np.maximum(inside[:, :2], 1) - 1
    inside[:, 2:] = np.minimum(inside[:, 2:], (sums.shape[1] - 1, sums.shape[0] - 1))
    has_pixels = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    boxes, inside = boxes[has_pixels], inside[has_pixels]
    network = _second_network if side == SIDES[1] else _third_network
    passed = [(boxes[:0], np.zeros((0, 4), np.float32), np.zeros((0, 10), np.float32))]
    for start in range(0, len(boxes), BATCH):
        batch = slice(start, start + BATCH)
        corrections, landmarks, scores = network(_resampled(sums, inside[batch], side, side))
        passes = scores > threshold
        scored = np.concatenate([boxes[batch][passes, :4], scores[passes, None]], 1)
        passed.append((scored, corrections[passes], landmarks[passes]))
    boxes, corrections, landmarks = (np.concatenate(parts) for parts in zip(*passed, strict=True))
    return boxes, corrections, landmarks


def _resampled(sums: npt.NDArray[np.uint32], boxes: Ints, height: int, width: int) -> Floats:
    """Parts of the image (left, top, right, bottom) as x_NHWC in [-1, 1]; each value is the mean of its pixels."""
    (left, top), (right, bottom) = boxes[:, :2].T[:, :, None], boxes[:, 2:].T[:, :, None]
    rows, columns = np.arange(height + 1), np.arange(width + 1)
    y0 = (top + rows[:-1] * (bottom - top) // height)[:, :, None]
    y1 = (top - -rows[1:] * (bottom - top) // height)[:, :, None]  # rounded up
    x0 = (left + columns[:-1] * (right - left) // width)[:, None, :]
    x1 = (left - -columns[1:] * (right - left) // width)[:, None, :]
    total = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    x_NHWC: Floats = (total / ((y1 - y0) * (x1 - x0))[..., None]).astype(np.float32)
    x_NHWC -= np.float32(127.5)
    x_NHWC /= np.float32(128)
    return x_NHWC


def _sides(boxes: Floats) -> Floats:
    return boxes[:, 2:4] - boxes[:, :2] + 1


def _corrected(boxes: Floats, corrections: Floats, extra: int = 1) -> Floats:
    """Boxes moved by corrections, which are fractions of their sides (``extra`` pixels longer than their corners)."""
    sides = boxes[:, 2:4] - boxes[:, :2] + extra
    return np.concatenate([boxes[:, :4] + corrections * np.tile(sides, 2), boxes[:, 4:]], 1)


def _squared(boxes: Floats) -> Floats:
    """The squares around the centers of boxes, of their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + sides * np.float32(0.5) - longer * np.float32(0.5)
    return np.concatenate([corner, corner + longer, boxes[:, 4:]], 1)


def _suppress(boxes: Floats, limit: float, *, of_smaller: bool = False) -> Ints:
    """Which boxes remain, the highest score first, if none may overlap a better one by more than a fraction.

    Args:
        limit: the fraction: of their union, or ``of_smaller`` of the two.
    """
    extra = int(of_smaller)
    corners = boxes[:, :2], boxes[:, 2:4]
    areas = (corners[1] - corners[0] + extra).prod(axis=1)
    order, kept = np.argsort(-boxes[:, 4], kind="stable"), []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        overlap = np.minimum(corners[1][best], corners[1][others]) - np.maximum(corners[0][best], corners[0][others])
        shared = np.maximum(overlap + extra, 0).prod(axis=1)
        smaller, union = np.minimum(areas[best], areas[others]), areas[best] + areas[others] - shared
        order = others[~(shared / (smaller if of_smaller else union) > limit)]
    return np.array(kept, np.int64)


def _first_network(x_NHWC: Floats) -> tuple[Floats, Floats]:
    """Corrections_NHW4 and scores_NHW of all places in images."""
    x = _max_pool(_convolve(x_NHWC, "pnet", "1"), 2)
    x = _convolve(_convolve(x, "pnet", "2"), "pnet", "3")
    return _convolve(x, "pnet", "4_2"), _score(_convolve(x, "pnet", "4_1"))


def _second_network(x_NHWC: Floats) -> tuple[Floats, Floats, Floats]:
    """Corrections_N4, no landmarks, and scores_N of images of 24 x 24 pixels."""
    x = _max_pool(_convolve(x_NHWC, "rnet", "1"), 3)
    x = _convolve(_max_pool(_convolve(x, "rnet", "2"), 3), "rnet", "3")
    x = _dense(_flattened(x), "rnet", "4")
    return _dense(x, "rnet", "5_2"), np.zeros((len(x), 10), np.float32), _score(_dense(x, "rnet", "5_1"))


def _third_network(x_NHWC: Floats) -> tuple[Floats, Floats, Floats]:
    """Corrections_N4, landmarks (five x, five y, as fractions of the box) and scores_N of 48 x 48 pixels."""
    x = _max_pool(_convolve(x_NHWC, "onet", "1"), 3)
    x = _max_pool(_convolve(x, "onet", "2"), 3)
    x = _convolve(_max_pool(_convolve(x, "onet", "3"), 2), "onet", "4")
    x = _dense(_flattened(x), "onet", "5")
    return _dense(x, "onet", "6_2"), _dense(x, "onet", "6_3"), _score(_dense(x, "onet", "6_1"))


def _convolve(x_NHWC: Floats, network: str, layer: str) -> Floats:
    """A convolution without padding, and its activation if it has one."""
    weights = _weights()
    kernel_HWIO = weights[f"{network}.conv{layer}.weight"]
    side, channels = len(kernel_HWIO), kernel_HWIO.shape[3]
    batch, height, width = x_NHWC.shape[0], x_NHWC.shape[1] - side + 1, x_NHWC.shape[2] - side + 1
    patches = np.empty((batch, height, width, side, side, x_NHWC.shape[3]), np.float32)
    for y in range(side):
        for x in range(side):
            patches[:, :, :, y, x] = x_NHWC[:, y : y + height, x : x + width]
    out = patches.reshape(batch * height * width, -1) @ kernel_HWIO.reshape(-1, channels)
    out += weights[f"{network}.conv{layer}.bias"]
    return _activated(out, network, layer).reshape(batch, height, width, channels)


def _dense(x_NI: Floats, network: str, layer: str) -> Floats:
    """A fully connected layer, and its activation if it has one."""
    weights = _weights()
    out = x_NI @ weights[f"{network}.dense{layer}.weight"] + weights[f"{network}.dense{layer}.bias"]
    return _activated(out, network, layer)


def _activated(x: Floats, network: str, layer: str) -> Floats:
    """PReLU, in place, with the layer's slopes below zero."""
    slopes = _weights().get(f"{network}.prelu{layer}.weight")
    if slopes is not None:
        positive = np.maximum(x, 0)
        x -= positive
        x *= slopes
        x += positive
    return x


def _max_pool(x_NHWC: Floats, side: int) -> Floats:
    """The maximum of squares that are two pixels apart; those at the lower and right edge may be cut off."""
    height, width = (-(-(length - side) // 2) + 1 for length in x_NHWC.shape[1:3])
    missing = [
        (0, max(0, 2 * (n - 1) + side - length)) for n, length in zip((height, width), x_NHWC.shape[1:3], strict=True)
    ]
    padded = np.pad(x_NHWC, ((0, 0), *missing, (0, 0)), constant_values=-np.inf)
    shifted = [
        padded[:, y : y + 2 * height - 1 : 2, x : x + 2 * width - 1 : 2] for y in range(side) for x in range(side)
    ]
    out = shifted[0].copy()
    for other in shifted[1:]:
        np.maximum(out, other, out=out)
    return out


def _flattened(x_NHWC: Floats) -> Floats:
    return x_NHWC.transpose(0, 2, 1, 3).reshape(len(x_NHWC), -1)


def _score(logits: Floats) -> Floats:
    """The probability of a face, from the logits of none and one."""
    return np.asarray(1 / (1 + np.exp(logits[..., 0] - logits[..., 1])), np.float32)


@cache
def _weights() -> dict[str, Floats]:
    """The weights of the three networks."""
    _compute_on_the_calling_thread()
    return mtcnn_weights.load()


def _compute_on_the_calling_thread() -> None:
    """Keeps numpy's matrix products of this process on the thread that asks.

    Faces are searched in several threads, each of which may use a core; CPU time of other threads would be counted for
    nobody.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
