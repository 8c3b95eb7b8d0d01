"""``make test`` runs both stages whatever the first does, and its last line names what failed."""

from pathlib import Path

import pytest

from tests.__main__ import main, summary

FAILS, PASSES = "def test_fails():\n    assert False\n", "def test_passes():\n    pass\n"


@pytest.mark.parametrize(
    ("first", "second", "last_line"),
    [
        (FAILS, PASSES, "FAILED: test_first.py::test_fails ("),
        (PASSES, "import nothing_of_that_name", "FAILED: test_second.py, stage 2 ended with exit code 2 ("),
    ],
    ids=["the first fails", "the second cannot be imported"],
)
def test_both_stages_run_and_the_last_line_names_what_failed(
    first: str, second: str, last_line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    stages = []
    for name, code in {"test_first.py": first, "test_second.py": second}.items():
        (tmp_path / name).write_text(code)
        stages.append((str(tmp_path / name), f"--rootdir={tmp_path}", "-c", str(tmp_path / "pytest.ini")))
    with pytest.raises(SystemExit) as exited:
        main(["-q"], tuple(stages), tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed")
    out = capfd.readouterr().out
    assert exited.value.code == 1
    assert out.splitlines()[-1].startswith(last_line)
    assert "1 passed in" in out


def test_nothing_failed_is_said_too(tmp_path: Path) -> None:
    assert summary([0, 0], tmp_path / "lastfailed") == "every test passed"
