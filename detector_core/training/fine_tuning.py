"""The rung *network* of a round: the data set and the settings with which the live network is fine-tuned.

Half of each batch are tags, half are old training images, drawn from all sources and classes in their proportions, so
that nothing is forgotten. A tag comes PASSES times, augmented anew each time; an epoch is thus as long as the tags are
many, not as the old data set is large. The settings are the recipe's, with a lower learning rate. The weights start
from the live ones, with the last layer of the rung *head*: a last layer that fits the tags already pulls less at what
comes before it (A. Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
2022). Heads on frozen features see each image as it is, as in that rung. The validation images are the old ones.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import safetensors.torch
from torch import nn

from detector_core import labels, storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.epochs import spread_evenly, strata
from detector_core.data.inspect import inspect_images
from detector_core.data.manifest import Manifest
from detector_core.data.sources import GROUP, SOURCE
from detector_core.errors import BadConfig
from detector_core.networks import artifacts
from detector_core.networks.frozen import FrozenNetwork
from detector_core.training import rounds
from detector_core.training.round_inputs import LiveModel, RoundImages

PASSES: Final = 16
"""Times that a tag comes in the one epoch."""
LEARNING_RATE_FACTOR: Final = 0.1
"""Of the recipe's learning rate, which trains from the weights of another task."""
TAGS: Final = "reviewed tags"
"""The source of the tags in the data set of a round."""


def check_trainable(network: nn.Module, variant: str) -> None:
    """Returns if fine-tuning can change more of a network than its last layer. Raises BadConfig otherwise."""
    if isinstance(network, FrozenNetwork) and network.tuned is None:
        raise BadConfig(
            f"--rung network: the backbones of {variant} are frozen, so there is nothing to fine-tune but its heads: "
            f"--rung head trains them"
        )


def save_start(where: Path, live: LiveModel, images: RoundImages, *, seed: int, replay: bool = True) -> None:
    """Writes the weights that the run starts from: the live ones, and the last layer of the rung *head*.

    Args:
        seed, replay: see :func:`.rounds.learn_head`.
    """
    weights = safetensors.torch.load_file(live.folder / artifacts.WEIGHTS)
    head = rounds.learn_head(live, images, seed=seed, replay=replay).weights
    safetensors.torch.save_file({**weights, **head}, where)


def settings(spec: RunSpec, weights: str, seed: int) -> RunSpec:
    """The spec of the run: the recipe's, for one epoch.

    Args:
        weights: the file of :func:`save_start`.
    """
    return spec.replace(
        {
            "model.init": weights,
            "optim.epochs": 1,
            "optim.learning_rate": spec.optim.learning_rate * LEARNING_RATE_FACTOR,
            "optim.head_learning_rate_factor": 1.0,
            "optim.schedule": "cosine",
            "optim.warmup_steps": 0,
            "optim.ema": 0.0,
            "optim.stratify": True,
            "augment.versions": 0,
            "seed": seed,
        }
    )


def save_data_set(where: str, images: RoundImages, data: Manifest, seed: int) -> Manifest:
    """Writes the data set of the run: tags and as many old images in ``train``, and the old ``valid``.

    Args:
        where: folder of the data set.
        data: the old data set.
        seed: of the draw of the old images.
    """
    tags = _tag_rows(images)
    replayed = _draw(data.split("train"), len(tags), seed)
    old = pd.concat([replayed, data.split("valid")])
    old = old.assign(path=[storage.join(data.root, path) for path in old["path"]])
    frame = pd.concat([tags, old[tags.columns]], ignore_index=True)
    return manifest.save(where, frame, root="", name=f"{data.name} and tags", generated=data.generated, audit={})


def _tag_rows(images: RoundImages) -> pd.DataFrame:
    """PASSES rows for each tag, and as many of each class."""
    tags = images.tags
    files = inspect_images(tags.root, list(tags.rows["path"])).drop(columns="path")
    rows = files.assign(label=tags.rows["label"], split="train", **{SOURCE: TAGS, GROUP: None})
    rows = rows.assign(path=[storage.join(tags.root, path) for path in tags.rows["path"]])
    per_class = PASSES * len(rows) // len(labels.LABELS)
    parts = [rows[rows["label"] == label] for label in labels.LABELS]
    repeated = [part.iloc[np.resize(np.arange(len(part)), per_class)] for part in parts]
    return pd.concat(repeated)[[*manifest.COLUMNS, *manifest.ORIGIN_COLUMNS]]


def _draw(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """``count`` rows, of all sources and classes in their proportions; all come once before any comes again."""
    order = spread_evenly(np.random.default_rng(seed).permutation(len(rows)), strata(rows))
    return rows.iloc[np.resize(order, count)]
