"""Which versions of a registry learnt from which tags."""

from collections.abc import Iterable
from pathlib import Path

from detector_core import storage
from detector_core.networks import artifacts
from detector_core.registry import versions


def versions_using(models: str | Path, ids: Iterable[str]) -> list[str]:
    """The versions that learnt from any of the tags, or whose ancestors did.

    Raises:
        BrokenArtifact: a version's ``artifact.json`` is damaged.
    """
    wanted = set(ids)
    return [name for name in versions.list_versions(models) if wanted & set(tags_of(storage.join(models, name)))]


def tags_of(model_folder: str | Path) -> list[str]:
    """The ids of all tags that a model has learnt from, itself or through its ancestors. Raises BrokenArtifact."""
    recorded = artifacts.read(model_folder).training.get(artifacts.LINEAGE, {})
    return [*recorded.get("inherited_tags", []), *recorded.get("tags", [])]
