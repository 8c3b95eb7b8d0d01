"""Which checkpoint of a run is the furthest, from folders alone."""

import json
from pathlib import Path

from pyarrow import fs

from jobs.run import checkpoints


def test_the_furthest_comes_first_whatever_its_date_and_a_damaged_one_before_it(tmp_path: Path) -> None:
    """A clock that jumps back gives the newest the earliest name."""
    for day, said in {
        "25": json.dumps({"epoch": 1, "step": 10}),
        "26": json.dumps({"epoch": 2, "step": 0}),
        "24": json.dumps({"epoch": 2, "step": 5}),
        "23": '{"epoch": 2',
        "22": "",
    }.items():
        folder = tmp_path / f"checkpoint_2026-11-{day}_00-00-00.000000"
        folder.mkdir()
        if said:
            (folder / "checkpoint.json").write_text(said)
    found = checkpoints.find(fs.LocalFileSystem(), str(tmp_path))
    assert [folder.path[-18:-16] for folder in found] == ["23", "22", "24", "26", "25"]
