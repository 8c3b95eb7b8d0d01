"""detector_core.training.label_errors: flipped labels are found, correct ones of a new kind are not doubted."""

import numpy as np
import pytest
from numpy.typing import NDArray

from detector_core.training.label_errors import confidences, is_doubtful


def tags(count: int, apart: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """More features than tags; those of the fakes differ in ten of them."""
    draw = np.random.default_rng(0)
    is_fake = np.arange(count) % 2 == 1
    feature = draw.normal(0, 1, (count, 200)).astype(np.float32)
    feature[is_fake, :10] += apart
    return feature, is_fake


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_most_flipped_labels_are_doubtful_and_few_correct_ones(share: float) -> None:
    feature, truth = tags(100, apart=3)
    flipped = np.random.default_rng(1).permutation(100) < 100 * share
    given = truth ^ flipped
    doubtful = is_doubtful(confidences(feature, given), given)
    assert (doubtful & flipped).sum() >= 0.5 * flipped.sum()
    assert (doubtful & ~flipped).sum() <= 5


def test_correct_labels_are_not_doubted() -> None:
    feature, is_fake = tags(30, apart=3)
    assert not is_doubtful(confidences(feature, is_fake), is_fake).any()


def test_a_label_is_doubtful_if_the_other_is_as_likely_as_where_people_gave_it() -> None:
    confidence = np.array([0.9, 0.7, 0.1, 0.4, 0.8, 0.6, 0.3])
    is_fake = np.array([False, False, False, False, True, True, True])
    # fakes are given with 0.57 on average, reals with 0.53: 0.9 and 0.6 for the other class are more, 0.7 too
    assert is_doubtful(confidence, is_fake).tolist() == [False, False, True, True, False, False, True]
