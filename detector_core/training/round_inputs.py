"""What a round of relearning starts from: the live model, and what its last layer gets for each image."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray

from detector_core import labels
from detector_core.data.manifest import Manifest
from detector_core.data.tagged import Selection
from detector_core.evaluation import calibration
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.intervals import Flags
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.training.features import FeatureReport
from detector_core.training.relearn import LastLayerInputs, Trunk


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """The live version that a round starts from.

    Attributes:
        folder: local folder of the version.
        stored: the precision in which the version stores each tensor, such as float16.
    """

    folder: Path
    artifact: Artifact
    trunk: Trunk
    calibration: Calibration
    stored: Mapping[str, torch.dtype]

    @classmethod
    def load(cls, folder: Path) -> "LiveModel":
        """Reads a model folder. Raises BrokenArtifact, and BadConfig for a network without a last layer."""
        network, artifact = artifacts.load(folder)
        weights = safetensors.torch.load_file(folder / artifacts.WEIGHTS)
        return cls(
            folder=folder,
            artifact=artifact,
            trunk=Trunk(network, artifact.spec.preprocess),
            calibration=calibration.load(str(folder), artifact.weights_sha256),
            stored={name: value.dtype for name, value in weights.items()},
        )

    def as_stored(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights in the precision in which the version stores them: what is checked is what is saved."""
        return {name: value.to(self.stored[name]) for name, value in weights.items()}


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of a round: their rows, and what the last layer of the live model gets for them.

    Attributes:
        root: folder or URI that the paths in ``rows`` are relative to.
        trunk_sha256: of the network that ``inputs`` come from.
    """

    rows: pd.DataFrame
    root: str
    inputs: LastLayerInputs
    trunk_sha256: str

    @property
    def is_fake(self) -> Flags:
        """The labels."""
        return labels.is_fake(self.rows["label"])

    def logits(self, trunk: Trunk) -> NDArray[np.float32]:
        """logit_N of a network; only one with other weights below the last layer sees the images again."""
        same = trunk.sha256 == self.trunk_sha256
        return trunk.logits(self.inputs if same else trunk.inputs(self.rows, self.root, "images", cache=None))

    def take(self, row_M: NDArray[np.int64]) -> "Images":
        """Some of the images."""
        other_N = self.inputs.other_N
        inputs = LastLayerInputs(
            feature_ND=self.inputs.feature_ND[row_M], other_N=None if other_N is None else other_N[row_M]
        )
        return dataclasses.replace(self, rows=self.rows.iloc[row_M].reset_index(drop=True), inputs=inputs)


@dataclass(frozen=True, kw_only=True)
class RoundImages:
    """All images of a round: splits of the data set, the tags to learn from and those held out, and the canary set."""

    train: Images
    valid: Images
    test: Images
    tags: Images
    held_out: Images
    canary: Images | None = None

    def without(self, ids: Collection[str]) -> "RoundImages":
        """The images without some of the tags."""
        kept = {
            part: images.take(np.flatnonzero(~images.rows["id"].isin(ids)))
            for part, images in (("tags", self.tags), ("held_out", self.held_out))
        }
        return dataclasses.replace(self, **kept)


def load_images(
    trunk: Trunk,
    data: Manifest,
    selection: Selection,
    work: Path,
    *,
    cache: Path | None,
    canary: pd.DataFrame | None = None,
    progress: Callable[[FeatureReport], object] = lambda _: None,
) -> RoundImages:
    """Computes what the last layer gets for all images of a round; only that of the data set is cached.

    Args:
        work: the folder that :func:`detector_core.data.tagged.select` has written the tagged images to.
        cache: folder for the inputs of the data set's images; None keeps none.
        canary: the rows of the canary set, whose images are in ``work``, too; None for none.
        progress: called after each batch.

    Raises:
        BadImage: an image of the data set is missing or damaged.
    """

    def load(rows: pd.DataFrame, root: str, title: str, cache: Path | None) -> Images:
        rows = rows.reset_index(drop=True)
        inputs = trunk.inputs(rows, root, title, cache=cache, progress=progress)
        return Images(rows=rows, root=root, inputs=inputs, trunk_sha256=trunk.sha256)

    frame = selection.frame
    return RoundImages(
        **{split: load(data.split(split), data.root, split, cache) for split in labels.SPLITS},
        tags=load(frame[~frame["held_out"]], str(work), "tags", None),
        held_out=load(frame[frame["held_out"]], str(work), "held-out tags", None),
        canary=None if canary is None else load(canary, str(work), "the canary set", None),
    )
