"""The model folder of a round's candidate: the live model's with other weights, calibration and lineage."""

import dataclasses
import re
from pathlib import Path

import safetensors.torch

from detector_core.data import seen
from detector_core.evaluation import calibration
from detector_core.networks import artifacts
from detector_core.training.round_inputs import LiveModel, RoundImages
from detector_core.training.rounds import Candidate


def save(
    candidate: Candidate, live: LiveModel, images: RoundImages, where: str | Path, *, parent: str
) -> artifacts.Artifact:
    """Writes the model folder of a candidate.

    Args:
        parent: the version that it was made from.
    """
    before = live.artifact
    inherited = before.training.get(artifacts.LINEAGE, {})
    changed = sorted({name.partition(".")[0] for name in candidate.learned.weights})
    lineage = {
        "parent": parent,
        "parent_weights_sha256": before.weights_sha256,
        "rung": candidate.rung,
        "changed": ["calibration", *changed],
        "tag_weight": candidate.learned.tag_weight,
        "tags": sorted(images.tags.rows["id"]),
        "held_out_tags": sorted(images.held_out.rows["id"]),
        "inherited_tags": sorted({*inherited.get("inherited_tags", []), *inherited.get("tags", [])}),
        "conditions": [condition.to_dict() for condition in candidate.conditions],
    }
    training = {**before.training, artifacts.LINEAGE: lineage}
    learnt = (images.train.rows, images.valid.rows, images.tags.rows, images.held_out.rows)
    known = seen.extended(seen.read(str(live.folder)), *learnt)
    artifact = artifacts.save(
        where,
        {**safetensors.torch.load_file(live.folder / artifacts.WEIGHTS), **candidate.learned.weights},
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
