"""Trained runs that are to be compared: what each was trained on, and which of them are seeds of one model."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from detector_core.data.manifest import Manifest
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from jobs.run.request import data_of_run


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained run: its model folder, its artifact, and the data set it was trained on, if that is known."""

    name: str
    folder: str
    artifact: Artifact
    own: Manifest | None


def open_candidate(run: str, sets: Sequence[Manifest]) -> Candidate:
    """A run or a model folder; its own data set is taken from ``sets`` if it is one of them."""
    folder = artifacts.find(run)
    artifact = artifacts.read(folder)
    own = next((data for data in sets if data.fingerprint == artifact.data["fingerprint"]), None) or data_of_run(run)
    return Candidate(name=artifact.run, folder=folder, artifact=artifact, own=own)


def model_names(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The model of each run, by its folder: the variant, or the run's name where several models share that."""
    keys = {}
    for candidate in candidates:
        spec, data = candidate.artifact.spec, candidate.artifact.data
        keys[candidate.folder] = json.dumps(
            [spec.replace({"seed": 0}).to_dict(), data["fingerprint"], data.get("left_out", [])], sort_keys=True
        )
    seeds = Counter((keys[candidate.folder], candidate.artifact.spec.seed) for candidate in candidates)
    models_of_variant = {
        variant: {keys[c.folder] for c in candidates if c.artifact.spec.variant == variant}
        for variant in {candidate.artifact.spec.variant for candidate in candidates}
    }
    runs = unique_names([c.name for c in candidates], [c.artifact.weights_sha256[:8] for c in candidates])
    repeated = {key for (key, _), count in seeds.items() if count > 1}
    names: dict[str, str] = {}
    first_run: dict[str, str] = {}
    for candidate, run in zip(candidates, runs, strict=True):
        key, variant = keys[candidate.folder], candidate.artifact.spec.variant
        if key in repeated:  # the same seed twice: no seeds of one model
            names[candidate.folder] = run
        elif len(models_of_variant[variant]) > 1:
            names[candidate.folder] = first_run.setdefault(key, run)
        else:
            names[candidate.folder] = variant
    return names


def unique_names(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    """The names, each followed by its mark if another one is the same."""
    counts = Counter(names)
    return [f"{name} ({mark})" if counts[name] > 1 else name for name, mark in zip(names, marks, strict=True)]
