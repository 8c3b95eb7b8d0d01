"""detector_core.images.augment: reproducible, independent changes, and the paper's cut-out."""

import itertools

import numpy as np
import pytest
from albumentations import check_version

from detector_core.config import AugmentSpec
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels


def noise(side: int = 40) -> Pixels:
    return np.random.default_rng(0).integers(1, 256, (side, side, 3), dtype=np.uint8)


def augment_many(augment: Augment, image_SSC: Pixels) -> list[Pixels]:
    return [augment(image_SSC, (0, 0, row)) for row in range(60)]


@pytest.mark.parametrize(
    "spec",
    [AugmentSpec(cutout=0.5, rotate_degrees=10, shift=0.1, zoom=0.1), AugmentSpec(delivery=1.0)],
    ids=["geometry and cut-out", "delivery"],
)
def test_augmentation_depends_only_on_the_key(spec: AugmentSpec) -> None:
    augment = Augment(spec)
    first = [augment(noise(), (0, 0, row)) for row in range(20)]
    again = [augment(noise(), (0, 0, row)) for row in reversed(range(20))]
    assert all((one == other).all() for one, other in zip(first, reversed(again), strict=True))
    assert not any((one == other).all() for one, other in itertools.combinations(first, 2))


def test_transforms_draw_independent_random_numbers() -> None:
    """With one seed for all transforms, every flipped image would also have a patch."""
    image_SSC = np.full((40, 40, 3), 200, np.uint8)
    image_SSC[:, :20] = 100
    augment = Augment(AugmentSpec(flip=0.5, cutout=0.5, brightness=0, contrast=0))
    outcomes = {
        (bool(out[0, 0, 0] == 200 or out[-1, 0, 0] == 200), bool((out == 0).any()))
        for out in augment_many(augment, image_SSC)
    }
    assert outcomes == set(itertools.product((False, True), repeat=2))


def test_cutout_is_one_black_square_inside_the_image() -> None:
    image_SSC = np.full((40, 40, 3), 200, np.uint8)
    augment = Augment(AugmentSpec(flip=0, brightness=0, contrast=0, cutout=1.0, cutout_size=0.25))
    for out in augment_many(augment, image_SSC):
        black = (out == 0).all(axis=2)
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert black.sum() == 100
        assert len(rows) == len(columns) == 10
        assert (out[~black] == 200).all()


def test_a_random_crop_is_a_part_of_the_image_at_its_own_scale() -> None:
    y, x = np.mgrid[0:40, 0:40].astype(np.uint8)
    image_SSC = np.stack([y, x, np.zeros_like(x)], axis=-1)
    corners = set()
    for out in augment_many(Augment(AugmentSpec(flip=0, brightness=0, contrast=0, crop=16)), image_SSC):
        top, left = out[0, 0, 0], out[0, 0, 1]
        assert (out == image_SSC[top : top + 16, left : left + 16]).all()
        corners.add((int(top), int(left)))
    assert len(corners) > 30


def test_delivery_leaves_some_images_as_they_are_and_changes_the_others() -> None:
    image_SSC = noise()
    delivered = augment_many(Augment(AugmentSpec(flip=0, brightness=0, contrast=0, delivery=1.0)), image_SSC)
    unchanged = sum((out == image_SSC).all() for out in delivered)
    assert {out.shape for out in delivered} == {image_SSC.shape}
    assert 1 <= unchanged <= 30


def test_the_library_asked_nobody_for_a_newer_version() -> None:
    assert check_version.opener is None
