"""docs/notebook.md: its code runs from top to bottom, here with a tiny model and fewer images."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detector_core.registry import versions
from tests.conftest import image_bytes
from tests.support.models import save_model

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "notebook.md").read_text(), flags=re.MULTILINE | re.DOTALL
)
COUNTS, FEWER = '{"train": 96, "valid": 32, "test": 32}', '{"train": 16, "valid": 4, "test": 4}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a reader who has run ``make demo`` and has one image."""
    (tmp_path / "face.jpg").write_bytes(image_bytes(0, "fake", side=64))
    versions.promote(save_model(tmp_path / "tiny"), tmp_path / ".demo" / "models")
    return tmp_path


def test_the_code_runs_from_top_to_bottom(folder: Path) -> None:
    code = "\n".join(BLOCKS)
    assert COUNTS in code
    script = folder / "notebook.py"
    script.write_text(code.replace(COUNTS, FEWER))
    # From another folder than the checkout: detector_core must be importable anywhere in the environment.
    run = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    verdict, *epochs, test = run.stdout.splitlines()
    assert verdict.split()[0] in ("real", "uncertain", "fake")
    assert [line.split(":")[0] for line in epochs] == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    assert test.startswith("test ROC AUC ")
    assert (folder / "heat.png").read_bytes().startswith(b"\x89PNG")
