"""Draws training, validation and test splits for a data set that comes without them.

Near-duplicates stay together, and so do the images of a person, video or seed: an image in the test split whose twin is
in the training split would measure memory, not generalization.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core.data.duplicates import connected_groups
from detector_core.errors import BadConfig, BadData
from detector_core.labels import LABELS, SPLITS


def join_groups(duplicate_N: NDArray[np.int64], groups: pd.Series) -> NDArray[np.int64]:
    """Groups that are divided neither by near-duplicates nor by the group that the data set names, shape (N,).

    Args:
        duplicate_N: the near-duplicate group of each image.
        groups: the named group of each image; None for an image without one.
    """
    edges = []
    for number_N in (duplicate_N, groups.factorize()[0]):  # no group is -1
        order = np.argsort(number_N, kind="stable")
        same = (number_N[order][1:] == number_N[order][:-1]) & (number_N[order][1:] >= 0)
        edges.append(np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64))
    return connected_groups(len(duplicate_N), edges)


def duplicates_to_exclude(frame: pd.DataFrame, group_N: NDArray[np.int64]) -> pd.Series:
    """Why an image must leave a data set so that no near-duplicate is in two splits, and no file has both labels.

    Of a group across splits the images of the last one stay: those of the test split before validation before training.

    Args:
        frame: ``sha256``, ``label`` and ``split`` of each image.
        group_N: the near-duplicate group of each row, shape (N,).

    Returns:
        The reason for each row; None for an image that stays.
    """
    rank = frame["split"].map({split: number for number, split in enumerate(SPLITS)}).to_numpy()
    last = pd.Series(rank).groupby(group_N).transform("max").to_numpy()
    reasons = pd.Series(None, index=frame.index, dtype=object)
    for number, split in enumerate(SPLITS):
        reasons[(rank < last) & (last == number)] = f"near-duplicate of an image in the {split} split"
    reasons[frame.groupby("sha256")["label"].transform("nunique") > 1] = "identical to an image with the other label"
    return reasons


def draw_splits(
    labels: Sequence[str], group_N: NDArray[np.int64], *, ratio: Sequence[int], seed: int
) -> NDArray[np.object_]:
    """Assigns each image to a split, stratified by label and grouped.

    Groups are assigned in random order, the largest first, each to the split that lacks most images of its labels. The
    assignment depends on ``seed`` and the group numbers, not on the order of the images.

    Args:
        labels: the label of each image, length N.
        group_N: the group of each image, int64, see :func:`join_groups`; all images of a group get the same split.
        ratio: relative sizes of the train, validation and test splits, such as (5, 1, 1).
        seed: seed of the random order.

    Returns:
        The name of each image's split (one of :data:`SPLITS`), shape (N,).

    Raises:
        BadConfig: the ratio is not three numbers of 1 or more.
        BadData: some split would have no image of some label.
    """
    if len(ratio) != len(SPLITS) or min(ratio) < 1:
        raise BadConfig(
            f"the split ratio is {':'.join(map(str, ratio))}: give train:valid:test as in 5:1:1, each 1 or more"
        )
    label_N = np.array([LABELS.index(label) for label in labels])
    number_N = np.unique(group_N, return_inverse=True)[1]
    members = np.zeros((number_N.max() + 1, len(LABELS)), dtype=np.int64)
    np.add.at(members, (number_N, label_N), 1)
    missing = np.outer(members.sum(axis=0), np.array(ratio) / sum(ratio))
    order = np.random.default_rng(seed).permutation(len(members))
    # The largest groups go first, so that single images can even out the imbalance they leave.
    order = order[np.argsort(-members[order].sum(axis=1), kind="stable")]
    split_of_group = np.empty(len(members), dtype=np.int64)
    for group in order:
        split_of_group[group] = (members[group] @ missing).argmax()
        missing[:, split_of_group[group]] -= members[group]
    split_N = split_of_group[number_N]
    for split, split_name in enumerate(SPLITS):
        for label, label_name in enumerate(LABELS):
            if not ((split_N == split) & (label_N == label)).any():
                count = int((label_N == label).sum())
                raise BadData(
                    f"{count} {label_name} images are too few: the {split_name} split would get none of them; add more"
                )
    return np.array(SPLITS, dtype=object)[split_N]
