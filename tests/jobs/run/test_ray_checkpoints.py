"""jobs.run.ray_checkpoints: the order in which the checkpoints of a run are tried."""

import json
from pathlib import Path

from pyarrow import fs

from jobs.run import ray_checkpoints


def test_checkpoints_are_ordered_by_progress_not_by_date_and_damaged_ones_come_first(tmp_path: Path) -> None:
    """If the clock jumps back, the newest checkpoint has the earliest name."""
    for day, content in {
        "25": json.dumps({"epoch": 1, "step": 10}),
        "26": json.dumps({"epoch": 2, "step": 0}),
        "24": json.dumps({"epoch": 2, "step": 5}),
        "23": '{"epoch": 2',
        "22": "",
    }.items():
        folder = tmp_path / f"checkpoint_2026-11-{day}_00-00-00.000000"
        folder.mkdir()
        if content:
            (folder / "checkpoint.json").write_text(content)
    folders = ray_checkpoints.find(fs.LocalFileSystem(), str(tmp_path))
    assert [folder.path[-18:-16] for folder in folders] == ["23", "22", "24", "26", "25"]
