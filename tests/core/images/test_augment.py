"""detector_core.images.augment: delivery and random crops. (Cut-out and seeds: tests/core/data/test_loading.py.)"""

import numpy as np
import pytest

from detector_core.config import AugmentSpec
from detector_core.data.portraits import portrait
from detector_core.images.augment import Augment, delivery
from detector_core.images.decode import Pixels

ALONE = {"flip": 0.0, "brightness": 0.0, "contrast": 0.0}


@pytest.fixture(scope="module")
def image() -> Pixels:
    rng = np.random.default_rng(0)
    light = portrait(rng, 128)
    return np.asarray((light / light.max()) ** (1 / 2.2) * 255, dtype=np.uint8)


def test_delivery_is_the_same_for_the_same_key(image: Pixels) -> None:
    augment = Augment(AugmentSpec(**ALONE, delivery=1.0))
    for number in range(20):
        assert np.array_equal(augment(image, (0, 1, number)), augment(image, (0, 1, number)))


def test_delivery_changes_most_images_a_little_and_leaves_some(image: Pixels) -> None:
    augment = Augment(AugmentSpec(**ALONE, delivery=1.0))
    changes = [np.abs(augment(image, (0, 0, number)).astype(int) - image).mean() for number in range(200)]
    unchanged = np.mean(np.array(changes) == 0)
    assert 0.02 < unchanged < 0.3
    assert np.median(changes) < 15, "what a person sees stays"


def test_delivery_is_rarer_with_a_lower_probability(image: Pixels) -> None:
    def unchanged(probability: float) -> int:
        augment = Augment(AugmentSpec(**ALONE, delivery=probability))
        return sum(np.array_equal(augment(image, (0, 0, number)), image) for number in range(100))

    assert unchanged(0.2) > unchanged(0.6) > unchanged(1.0)


@pytest.mark.parametrize("number", range(len(delivery(1.0))))
def test_every_change_of_delivery_works_alone_and_keeps_the_size(image: Pixels, number: int) -> None:
    transform = delivery(1.0)[number]
    transform.p = 1.0
    transform.set_random_seed(0)
    changed = transform(image=image)["image"]
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)


def test_a_random_crop_is_cut_out_and_not_resized(image: Pixels) -> None:
    augment = Augment(AugmentSpec(**ALONE, crop=48))
    windows = np.lib.stride_tricks.sliding_window_view(image, (48, 48), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    places = set()
    for number in range(10):
        cropped = augment(image, (0, 0, number))
        found = np.argwhere((windows[:, :, 0, 0] == cropped[0, 0]).all(-1))
        matching = [(y, x) for y, x in found.tolist() if np.array_equal(windows[y, x], cropped)]
        assert matching
        places.add(matching[0])
    assert len(places) > 5
