"""detector_core.data.round_log: what rounds remember about tags, and what a deletion reaches in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector_core import storage
from detector_core.data import feedback, review, round_log
from detector_core.errors import BadData
from tests.core.data.test_review import give


def write_round(folder: Path, name: str, **values: Any) -> Path:
    """A finished round with a model; returns the folder of the model."""
    model = folder / round_log.ROUNDS / name / round_log.MODEL
    model.mkdir(parents=True)
    (model / "weights").touch()
    record = {"tags": [], "held_out_tags": [], "left_out": {}, **values}
    (model.parent / round_log.ROUND).write_text(json.dumps(record))
    return model


def test_a_deletion_reaches_the_models_of_the_rounds_that_learnt_from_the_tag(tmp_path: Path) -> None:
    gone, other = give(tmp_path, 0), give(tmp_path, 1)
    learnt = write_round(tmp_path, "1", tags=[gone, other])
    child = write_round(tmp_path, "2", tags=[other], inherited_tags=[gone])
    compared = write_round(tmp_path, "3", tags=[other], held_out_tags=[gone])
    killed = write_round(tmp_path, "4").parent
    (killed / round_log.ROUND).unlink()
    review.delete(tmp_path, [gone], reviewer="ben")
    with storage.locked(tmp_path / feedback.ROUND_LOCK):
        assert round_log.delete_models(tmp_path) == ["1", "2"]
    assert [model.exists() for model in (learnt, child, compared, killed)] == [False, False, True, True]
    assert (learnt.parent / round_log.ROUND).exists()
    assert round_log.delete_models(tmp_path) == []
    assert not killed.exists()  # no round was running


def test_the_part_of_a_tag_is_remembered_and_a_damaged_round_is_named(tmp_path: Path) -> None:
    model = write_round(tmp_path, "1", tags=["a"], held_out_tags=["b"], left_out={"c": "why"})
    assert round_log.parts(tmp_path) == {"a": False, "b": True}
    path = model.parent / round_log.ROUND
    for damaged in ("{", "[]", "{}", '{"tags": 3}'):
        path.write_text(damaged)
        for read in (round_log.parts, round_log.delete_models, round_log.new_tags):
            with pytest.raises(BadData, match=f"{path} is not the record of a round"):
                read(tmp_path)
