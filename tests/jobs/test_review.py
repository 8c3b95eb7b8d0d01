"""jobs.review: list, sheet, decide, undo, export and delete; each wrong command is one line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import feedback
from detector_core.registry import lineage, versions
from tests.core.data.test_round_log import write_round
from tests.core.registry.test_lineage import record
from tests.support.images import encode, noise
from tests.support.models import save_model

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = feedback.Store(tmp_path / "feedback", 10**7)
    store.add(encode(noise()), "real", model=MODEL, verdict="real", p_fake=0.1)
    store.add(encode(noise(size=(50, 50))), "fake", model=MODEL, verdict="real", p_fake=0.2)
    return tmp_path / "feedback"


def test_a_review_from_the_list_to_a_deletion(folder: Path, tmp_path: Path, run_job: Any) -> None:
    listed = run_job("review", "list", folder)
    wrong, right = listed.result["ids"]
    assert (listed.code, listed.result["waiting"]) == (0, 2)
    lines = listed.messages.splitlines()
    assert wrong in lines[0]
    assert "tagged fake, predicted real" in lines[0]
    accepted = run_job("review", "accept", folder, wrong[:9], right[:9], "--reviewer", "anna", "--because", "mine")
    assert accepted.result == {"waiting": 0, "accepted": 2, "rejected": 0, "disputed": 0, "ids": [wrong, right]}
    assert run_job("review", "undo", folder, right, "--reviewer", "anna").result["waiting"] == 1
    assert run_job("review", "reject", folder, right, "--reviewer", "ben").result["rejected"] == 1
    assert run_job("review", "list", folder, "--state", "accepted").result["ids"] == [wrong]
    sheet = tmp_path / "new" / "sheet.html"
    assert run_job("review", "sheet", folder, "--out", sheet, "--state", "all").result["ids"] == [wrong, right]
    assert "accept by anna: mine" in sheet.read_text()
    assert run_job("review", "sheet", folder, "--out", sheet).result["ids"] == []

    model = save_model(tmp_path / "model")
    record(model, **{"tags": [wrong]})
    version = versions.promote(model, tmp_path / "models")
    assert lineage.tags_of(tmp_path / "models" / version) == [wrong]
    of_round = write_round(folder, "1", tags=[wrong])
    deleted = run_job("review", "delete", folder, wrong, "--reviewer", "anna", "--models", tmp_path / "models")
    assert (deleted.result["ids"], deleted.result["versions"]) == ([wrong], [version])
    assert (deleted.result["rounds"], of_round.exists()) == (["1"], False)
    assert run_job("review", "list", folder).result["ids"] == [right]


def test_old_tags_are_exported_and_deleted(folder: Path, tmp_path: Path, run_job: Any) -> None:
    old, new = feedback.read(folder)
    path = folder / feedback.RECORDS / f"{old.id}.json"
    given = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="microseconds")
    path.write_text(json.dumps({**json.loads(path.read_text()), "time": given}))
    run_job("review", "accept", folder, old.id, "--reviewer", "anna")
    exported = run_job("review", "export", folder, "--older-than", "99", "--out", tmp_path / "tags.zip")
    assert (exported.result["ids"], exported.result["export"]) == ([old.id], str(tmp_path / "tags.zip"))
    assert (tmp_path / "tags.zip").exists()
    of_round = write_round(folder, "1", tags=[old.id])
    expire = ("review", "delete", folder, "--older-than", "99", "--reviewer", "retention")
    assert run_job(*expire).result["ids"] == [old.id]
    assert not (folder / old.image).exists()
    assert not of_round.exists()
    assert run_job(*expire).result["ids"] == []
    assert [record.id for record in feedback.read(folder)] == [new.id]


def test_a_wrong_command_is_one_line(folder: Path, tmp_path: Path, run_job: Any) -> None:
    wrong = {
        ("list", tmp_path / "nowhere"): "is not a feedback folder",
        ("list", folder, "abc"): "list takes no ID",
        ("accept", folder): "accept needs the ID of a tag",
        ("accept", folder, "zz", "--reviewer", "anna"): "'zz' is not the id of a tag",
        ("accept", folder, "zz"): "the reviewer has no name",
        ("sheet", folder): "which need it",
        ("list", folder, "--out", "x.html"): "--out FILE is for sheet",
        ("list", folder, "--models", "models"): "is for delete",
        ("list", folder, "--older-than", "3"): "--older-than 3 is for export and delete",
        ("delete", folder, "ab", "--older-than", "3"): "takes IDs or --older-than 3, not both",
        ("delete", folder, "--older-than", "0", "--reviewer", "a"): "it must be a number of days above 0",
        ("delete", folder, "--older-than", "3"): "the reviewer has no name",
        ("export", folder, "ab"): "--out FILE is for sheet and export",
        ("sheet", folder, "--out", folder / "records"): "a folder is where a file should be",
    }
    for arguments, part in wrong.items():
        done = run_job("review", *arguments)
        assert (done.code, done.result) == (1, {}), arguments
        assert part in done.last_message, arguments
        assert done.last_message.startswith("error: "), arguments
