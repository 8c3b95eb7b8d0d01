"""One round of relearning: accepted tags -> candidates, one per rung of the ladder -> the gate -> a model folder.

Rungs, the cheapest first: ``thresholds`` chooses temperature and thresholds again, with the tags weighed in; ``head``
also trains the last layer anew on frozen features, with replay of the training split (:mod:`.relearn`). Everything is
drawn from the seed and the images, so a round that died gives the same result when it is started again.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from detector_core import labels
from detector_core.data import seen
from detector_core.data.manifest import Manifest
from detector_core.data.sources import SOURCE
from detector_core.data.tagged import Selection
from detector_core.evaluation import calibration, gate
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.gate import Condition, Paired
from detector_core.evaluation.intervals import Flags
from detector_core.networks import artifacts
from detector_core.training import relearn
from detector_core.training.features import FeatureReport
from detector_core.training.relearn import LastLayerInputs, Trunk

THRESHOLDS, HEAD = "thresholds", "head"
RUNGS: Final = (THRESHOLDS, HEAD)
CALIBRATION_TAG_WEIGHT: Final = 0.25
"""The largest part of the weight, in the choice of temperature and thresholds, that comes from the tags."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of a round: their rows, and what the last layer gets for them."""

    rows: pd.DataFrame
    inputs: LastLayerInputs

    @property
    def is_fake(self) -> Flags:
        """The labels."""
        return labels.is_fake(self.rows["label"])


@dataclass(frozen=True, kw_only=True)
class RoundImages:
    """All images of a round: splits of the data set, and the tags to learn from and those held out."""

    train: Images
    valid: Images
    test: Images
    tags: Images
    held_out: Images


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A new model on trial.

    Attributes:
        rung: one of :data:`RUNGS`.
        last_layer: its last layer.
        calibration: its temperature and thresholds.
        conditions: of the gate.
    """

    rung: str
    last_layer: nn.Module
    calibration: Calibration
    conditions: Sequence[Condition]

    @property
    def passed(self) -> bool:
        """Whether all conditions hold."""
        return all(condition.passed for condition in self.conditions)

    @property
    def held_out_errors(self) -> int:
        """Errors on the held-out tags, of which the candidate with the fewest is chosen."""
        return self.conditions[-1].new


def load_images(
    trunk: Trunk,
    data: Manifest,
    selection: Selection,
    work: Path,
    *,
    cache: Path | None,
    progress: Callable[[FeatureReport], object] = lambda _: None,
) -> RoundImages:
    """Computes what the last layer gets for all images of a round; only that of the data set is cached.

    Args:
        work: the folder that :func:`detector_core.data.tagged.select` has written the tagged images to.
        cache: folder for the inputs of the data set's images; None keeps none.
        progress: called after each batch.

    Raises:
        BadImage: an image of the data set is missing or damaged.
    """

    def load(rows: pd.DataFrame, root: str, title: str, cache: Path | None) -> Images:
        rows = rows.reset_index(drop=True)
        return Images(rows=rows, inputs=trunk.inputs(rows, root, title, cache=cache, progress=progress))

    frame = selection.frame
    return RoundImages(
        **{split: load(data.split(split), data.root, split, cache) for split in labels.SPLITS},
        tags=load(frame[~frame["held_out"]], str(work), "tags", None),
        held_out=load(frame[frame["held_out"]], str(work), "held-out tags", None),
    )


def try_rung(
    rung: str,
    trunk: Trunk,
    live: Calibration,
    images: RoundImages,
    data: Manifest,
    *,
    dtype: torch.dtype,
    seed: int,
    replay: bool = True,
) -> Candidate:
    """Makes the candidate of a rung and checks it against the live model.

    Args:
        live: the calibration of the live model.
        data: the data set, whose name the calibration records.
        dtype: the precision in which the last layer is stored (:func:`stored_dtype`): it is checked as it is stored.
        seed: of the training of the last layer.
        replay: whether the old training images are replayed; only benchmarks turn it off.
    """
    last_layer, tags = trunk.last_layer, None if rung == HEAD else images.tags
    if rung == HEAD:
        last_layer = relearn.fit_last_layer(
            trunk,
            images.tags.inputs,
            images.tags.rows["label"],
            images.train.inputs if replay else None,
            images.train.rows["label"] if replay else None,
            seed=seed,
        )
        last_layer = last_layer.to(dtype).float()
    chosen = recalibrate(trunk, last_layer, images.valid, tags, data)
    pairs = [
        Paired(
            is_fake_N=part.is_fake,
            live_N=live.p_fake(trunk.logits(part.inputs)) >= live.fake_above,
            new_N=chosen.p_fake(trunk.logits(part.inputs, last_layer)) >= chosen.fake_above,
            source_N=part.rows[SOURCE].to_numpy(dtype=str) if SOURCE in part.rows else None,
        )
        for part in (images.test, images.held_out)
    ]
    return Candidate(rung=rung, last_layer=last_layer, calibration=chosen, conditions=gate.check(*pairs))


def recalibrate(trunk: Trunk, last_layer: nn.Module, valid: Images, tags: Images | None, data: Manifest) -> Calibration:
    """Chooses temperature and thresholds on the validation split, with tags weighed in by repeating one or the other.

    Args:
        tags: tags that ``last_layer`` has not learnt from; None for the validation split alone.
    """
    logit_N, is_fake_N = trunk.logits(valid.inputs, last_layer), valid.is_fake
    chosen_on: dict[str, Any] = {
        "fingerprint": data.fingerprint,
        "name": data.name,
        "split": "valid",
        "n": len(valid.rows),
    }
    if tags is not None:
        allowed = CALIBRATION_TAG_WEIGHT / (1 - CALIBRATION_TAG_WEIGHT) * len(valid.rows)
        times, valid_times = max(1, int(allowed // len(tags.rows))), max(1, math.ceil(len(tags.rows) / allowed))
        tag_logit_N = trunk.logits(tags.inputs, last_layer)
        logit_N = np.concatenate([np.tile(logit_N, valid_times), np.tile(tag_logit_N, times)])
        is_fake_N = np.concatenate([np.tile(is_fake_N, valid_times), np.tile(tags.is_fake, times)])
        chosen_on |= {"tags": len(tags.rows), "times": times, "valid_times": valid_times}
    return calibration.choose(is_fake_N, logit_N, chosen_on=chosen_on)


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the fewest errors on held-out tags among those that pass, or else among all."""
    return min(candidates, key=lambda candidate: (not candidate.passed, candidate.held_out_errors))


def save(
    candidate: Candidate, trunk: Trunk, parent: str, parent_folder: Path, images: RoundImages, where: str | Path
) -> artifacts.Artifact:
    """Writes the model folder of a candidate: the parent's with another last layer, calibration and lineage.

    Args:
        parent: the version that it was made from.
        parent_folder: local folder of that version.
    """
    before = artifacts.read(parent_folder)
    weights = safetensors.torch.load_file(parent_folder / artifacts.WEIGHTS)
    for name, value in candidate.last_layer.state_dict().items():
        weights[f"{trunk.name}.{name}"] = value.to(weights[f"{trunk.name}.{name}"].dtype)
    inherited = before.training.get(artifacts.LINEAGE, {})
    lineage = {
        "parent": parent,
        "parent_weights_sha256": before.weights_sha256,
        "rung": candidate.rung,
        "changed": ["calibration", *([trunk.name] if candidate.rung == HEAD else [])],
        "tags": sorted(images.tags.rows["id"]),
        "held_out_tags": sorted(images.held_out.rows["id"]),
        "inherited_tags": sorted({*inherited.get("inherited_tags", []), *inherited.get("tags", [])}),
        "conditions": [condition.to_dict() for condition in candidate.conditions],
    }
    training = {**before.training, artifacts.LINEAGE: lineage}
    learnt = (images.train.rows, images.valid.rows, images.tags.rows, images.held_out.rows)
    known = seen.extended(seen.read(str(parent_folder)), *learnt)
    artifact = artifacts.save(
        where,
        weights,
        dataclasses.replace(before, run=next_name(before.run), training=training, versions={}),
        {seen.SEEN: known} if known else {},
    )
    chosen_on = {**candidate.calibration.chosen_on, "weights_sha256": artifact.weights_sha256}
    calibration.save(str(where), dataclasses.replace(candidate.calibration, chosen_on=chosen_on))
    return artifact


def next_name(run: str) -> str:
    """The run name of a successor: ``starter``, ``starter-r1``, ``starter-r2``, ..."""
    match = re.fullmatch(r"(.*)-r(\d+)", run)
    return f"{match[1]}-r{int(match[2]) + 1}" if match else f"{run}-r1"


def stored_dtype(model_folder: Path, trunk: Trunk) -> torch.dtype:
    """The precision in which a model folder stores its last layer, such as float16."""
    weights = safetensors.torch.load_file(model_folder / artifacts.WEIGHTS)
    return next(value.dtype for name, value in weights.items() if name.startswith(f"{trunk.name}."))
