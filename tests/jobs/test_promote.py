"""jobs.promote: promotion, listing, rolling back, pruning, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import manifest
from jobs import promote
from jobs.run import request
from tests.support.models import save_model


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the job in this process: exit code, JSON of the last line (None without one), stderr."""

    def call(*arguments: object) -> tuple[Any, Any, str]:
        stdout, handler = os.dup(1), signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as exit_:
            promote.main([str(argument) for argument in arguments])
        # A job ends its process, so it does not restore these.
        os.dup2(stdout, 1)
        os.close(stdout)
        signal.signal(signal.SIGTERM, handler)
        out, err = capfd.readouterr()
        return exit_.value.code, json.loads(out.splitlines()[-1]) if out else None, err

    return call


def test_promote_list_and_roll_back(tmp_path: Path, run: Any) -> None:
    models = tmp_path / "models"
    code, first, _ = run(save_model(tmp_path / "a", run="a"), "--to", models)
    assert code == 0
    live = str(models / first["version"])
    assert first == {"live": live, "version": first["version"], "previous": None, "precision": "fp32"}

    code, second, err = run(save_model(tmp_path / "b", run="b", seed=1, auc=0.95), "--to", models)
    assert code == 0
    assert second["previous"] == first["version"]
    assert f"0.9500, {first['version']} had 0.9000" in err

    code, listed, err = run("--list", "--to", models)
    assert listed == {"live": str(models / second["version"]), "versions": [second["version"], first["version"]]}
    assert f"live  {second['version']}" in err

    code, back, _ = run("--rollback", "--to", models)
    assert (code, back["version"], back["previous"]) == (0, first["version"], second["version"])

    code, pruned, err = run("--prune", 1, "--to", models)
    assert pruned == {"live": live, "versions": [first["version"]], "removed": [second["version"]]}
    assert second["version"] in err


def test_refusals_are_reported_in_one_line_with_exit_code_1(tmp_path: Path, run: Any) -> None:
    models, good = tmp_path / "models", save_model(tmp_path / "good")
    assert run(good, "--to", models)[0] == 0
    worse = save_model(tmp_path / "worse", seed=1, auc=0.5)
    lines = {
        (worse, "--to", models): "--force",
        (tmp_path / "nowhere", "--to", models): "artifact.json",
        ("--rollback", "--to", models): "nothing to roll back",
        ("--to", models): "RUN_OR_MODEL",
        (good, "--list", "--to", models): "RUN_OR_MODEL",
        (good, "--to", "s3://key:secret@bucket/models"): "AWS_ENDPOINT_URL",
        (good, "--prune", 1, "--to", models): "RUN_OR_MODEL",
        ("--prune", 0, "--to", models): "always kept",
        (good, "--to", models, "--precision", "int8"): "--data DATASET",
        (good, "--to", models, "--data", tmp_path / "nowhere"): "jobs.prepare",
    }
    for arguments, part in lines.items():
        code, result, err = run(*arguments)
        assert (code, result) == (1, None)
        assert part in err
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
    code, forced, _ = run(worse, "--to", models, "--force")
    assert (code, forced["version"].split("-")[0]) == (0, "tiny")


def test_the_data_set_of_a_run_is_found_unless_it_moved_or_changed(tmp_path: Path, tiny_dataset: Path) -> None:
    data = manifest.load(str(tiny_dataset))
    run_folder = tmp_path / "run"
    save_model(run_folder / "model", data=data.fingerprint)
    assert request.data_of_run(str(run_folder)) is None
    (run_folder / "run.json").write_text(json.dumps({"data": str(tiny_dataset)}))
    loaded = request.data_of_run(str(run_folder))
    assert loaded
    assert loaded.fingerprint == data.fingerprint
    (run_folder / "run.json").write_text(json.dumps({"data": str(tmp_path / "moved")}))
    assert request.data_of_run(str(run_folder)) is None
    other = tmp_path / "other"
    save_model(other / "model", data="d1")
    (other / "run.json").write_text(json.dumps({"data": str(tiny_dataset)}))
    assert request.data_of_run(str(other)) is None


def test_promotion_writes_nothing_to_the_home_folder(tmp_path: Path, tiny_dataset: Path) -> None:
    """In another process, because NNCF turns its telemetry off if pytest is loaded."""
    home, models = tmp_path / "home", tmp_path / "models"
    home.mkdir()
    command = [sys.executable, "-m", "jobs.promote", save_model(tmp_path / "model"), "--to", models]
    done = subprocess.run(
        [*map(str, command), "--data", str(tiny_dataset), "--precision", "int8", "--force"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["precision"] == "int8"
    assert "-> int8" in done.stderr
    assert list(home.iterdir()) == []


def test_without_a_promotion_the_list_is_empty(tmp_path: Path, run: Any) -> None:
    assert run("--list", "--to", tmp_path / "models")[:2] == (0, {"live": None, "versions": []})


def test_the_help_explains_the_files_and_promotion_does_not_import_ray() -> None:
    code = "import sys; from jobs import promote; print('ray' in sys.modules); promote.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("False")
    assert "MODELS/VERSION" in done.stdout
