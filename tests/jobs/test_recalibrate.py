"""jobs.recalibrate on the Ray cluster that the tests of the jobs share."""

from pathlib import Path
from typing import Any

import pytest

from detector_core.registry import versions
from tests.conftest import image_bytes
from tests.support.models import save_model


def put(folder: Path, count: int, label: str) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(image_bytes(number, label))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.usefixtures("shared_ray")
def test_photographs_from_a_place_make_a_new_live_version(tmp_path: Path, run_job: Any) -> None:
    models = tmp_path / "models"
    before = versions.promote(save_model(tmp_path / "model"), models)
    reals, fakes = put(tmp_path / "reals", 40, "real"), put(tmp_path / "fakes", 10, "fake")
    done = run_job("recalibrate", models, "--reals", reals, "--fakes", fakes, "--flag-at-most", "0.05")
    assert done.code == 0, done.messages
    assert (done.result["before"], done.result["reals"], done.result["fakes"]) == (before, 40, 10)
    assert done.result["left_out"] == 2
    assert done.result["reals_flagged_rate"]["value"] <= 0.05 < done.result["reals_flagged_rate"]["high"]
    assert versions.history(models) == [done.result["version"], before]
    assert "at least 73 are needed to bound it to 5.00%" in done.messages
    back = run_job("promote", "--to", models, "--rollback")
    assert back.code == 0
    assert versions.history(models)[0] == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flag-at-most", "0"], "--flag-at-most is 0.0: it must be above 0 and below 1"),
        (["--flag-at-most", "0.1", "--version", "no"], "--version no: "),
        (["--flag-at-most", "0.1"], "has no live model"),
    ],
)
def test_invalid_flags_are_reported_in_one_line(tmp_path: Path, run_job: Any, flags: list[str], message: str) -> None:
    done = run_job("recalibrate", tmp_path / "models", "--reals", tmp_path, *flags)
    assert (done.code, done.result) == (1, {})
    assert message in done.last_message
