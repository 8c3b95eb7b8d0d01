"""detector_core.data.splits: the ratio holds in each class, groups stay together, and the seed decides."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from detector_core.data.splits import draw_splits, duplicates_to_exclude
from detector_core.errors import BadConfig, BadData
from detector_core.labels import LABELS, SPLITS


def test_the_splits_have_the_ratio_in_each_class():
    labels = ["real"] * 700 + ["fake"] * 350
    splits = draw_splits(labels, np.arange(1050), ratio=(5, 1, 1), seed=0)
    counts = pd.crosstab(np.array(labels), splits)
    assert counts.loc["real", list(SPLITS)].tolist() == [500, 100, 100]
    assert counts.loc["fake", list(SPLITS)].tolist() == [250, 50, 50]


def test_groups_stay_together():
    labels = ["real", "fake"] * 300
    group_N = np.random.default_rng(0).integers(0, 90, 600)
    splits = draw_splits(labels, group_N, ratio=(5, 1, 1), seed=3)
    assert (pd.Series(splits).groupby(group_N).nunique() == 1).all()
    proportions = pd.crosstab(np.array(labels), splits, normalize="index")
    assert np.abs(proportions["train"] - 5 / 7).max() < 0.03


def test_the_splits_depend_on_the_seed():
    labels, group_N = ["real", "fake"] * 50, np.arange(100)
    first, again, other = (draw_splits(labels, group_N, ratio=(3, 1, 1), seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@st.composite
def grouped_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups of images, in groups of up to four with the same label."""
    groups = draw(st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 4)), min_size=40, max_size=80))
    labels = np.array([label for label, size in groups for _ in range(size)])
    names = draw(st.permutations(range(len(groups))))
    return labels, np.array([name for name, (_, size) in zip(names, groups, strict=True) for _ in range(size)])


def draw_or_reject(labels: np.ndarray, group_N: np.ndarray, ratio: list[int], seed: int) -> np.ndarray:
    """Draws splits; rejects an example with too few images of a label."""
    try:
        return draw_splits(list(labels), group_N, ratio=ratio, seed=seed)
    except BadData:
        reject()


def test_of_near_duplicates_across_splits_the_last_split_keeps_its_images():
    frame = pd.DataFrame(
        [
            ("a", "real", "train"),  # group 0: a near-duplicate of one in test
            ("b", "real", "valid"),  # group 0
            ("c", "real", "test"),  # group 0
            ("d", "fake", "train"),  # group 1: twice in one split
            ("e", "fake", "train"),  # group 1
            ("f", "fake", "train"),  # group 2: near one in valid
            ("g", "fake", "valid"),  # group 2
            ("h", "real", "test"),  # group 3: one file with both labels
            ("h", "fake", "test"),  # group 3
        ],
        columns=["sha256", "label", "split"],
        index=range(10, 19),
    )
    reasons = duplicates_to_exclude(frame, np.array([0, 0, 0, 1, 1, 2, 2, 3, 3]))
    near, both = "near-duplicate of an image in the {} split", "identical to an image with the other label"
    assert reasons.dropna().to_dict() == {
        10: near.format("test"),
        11: near.format("test"),
        15: near.format("valid"),
        17: both,
        18: both,
    }
    kept = reasons.isna().to_numpy()
    again = duplicates_to_exclude(frame[kept], np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])[kept])
    assert again.isna().all(), "nothing more is to be excluded"


ratios, seeds = st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(0, 2**31 - 1)


@settings(max_examples=50)
@given(grouped_labels(), ratios, seeds)
def test_near_duplicates_stay_in_one_split_and_each_label_keeps_the_ratio(
    given_: tuple[np.ndarray, np.ndarray], ratio: list[int], seed: int
):
    """A group goes to the split that lacks most of its label, so a surplus is at most one group, a lack at most two."""
    labels, group_N = given_
    splits = draw_or_reject(labels, group_N, ratio, seed)
    assert (pd.Series(splits).groupby(group_N).nunique() == 1).all()
    for label in LABELS:
        largest = np.bincount(group_N[labels == label]).max()
        for split, part in zip(SPLITS, ratio, strict=True):
            surplus = (splits[labels == label] == split).sum() - (labels == label).sum() * part / sum(ratio)
            assert -2 * largest <= surplus <= largest


@settings(max_examples=50)
@given(grouped_labels(), ratios, seeds, st.randoms(use_true_random=False))
def test_the_split_of_an_image_does_not_depend_on_the_order(
    given_: tuple[np.ndarray, np.ndarray], ratio: list[int], seed: int, random
):
    labels, group_N = given_
    splits = draw_or_reject(labels, group_N, ratio, seed)
    order = random.sample(range(len(labels)), len(labels))
    assert (draw_or_reject(labels[order], group_N[order], ratio, seed) == splits[order]).all()


@pytest.mark.parametrize("ratio", [(5, 1), (5, 0, 1), (5, -1, 1)])
def test_invalid_ratios_are_rejected(ratio: tuple[int, ...]):
    with pytest.raises(BadConfig, match="split ratio"):
        draw_splits(["real", "fake"], np.arange(2), ratio=ratio, seed=0)


def test_too_few_images_for_every_split_are_rejected():
    with pytest.raises(BadData, match="2 real images are too few: the valid split would get none"):
        draw_splits(["real", "real", *["fake"] * 9], np.arange(11), ratio=(5, 1, 1), seed=0)
