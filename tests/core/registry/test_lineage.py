"""detector_core.registry.lineage: which versions learnt from a tag, themselves or through their ancestors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from detector_core.networks import artifacts
from detector_core.registry import lineage, versions
from tests.support.models import save_model


def record(folder: Path, **values: Any) -> None:
    """Writes a lineage into a model folder."""
    artifact = artifacts.read(folder)
    training = {**artifact.training, artifacts.LINEAGE: values}
    fields = dataclasses.asdict(artifact) | {"spec": artifact.spec.to_dict(), "training": training}
    (folder / artifacts.ARTIFACT).write_text(json.dumps(fields))


def test_versions_that_learnt_from_a_tag_are_found(tmp_path: Path) -> None:
    models = tmp_path / "models"
    trained = [save_model(tmp_path / name, seed=seed, run=name) for seed, name in enumerate(("a", "b", "c"))]
    record(trained[1], tags=["t1", "t2"], inherited_tags=[])
    record(trained[2], tags=["t3"], inherited_tags=["t1", "t2"])
    first, second, third = (versions.promote(folder, models) for folder in trained)
    assert lineage.versions_using(models, ["t1", "other"]) == [third, second]
    assert lineage.versions_using(models, ["t3"]) == [third]
    assert lineage.versions_using(models, ["other"]) == []
    assert lineage.tags_of(models / first) == []
    assert lineage.tags_of(models / third) == ["t1", "t2", "t3"]
