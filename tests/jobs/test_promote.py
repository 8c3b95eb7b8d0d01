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
from detector_core.registry import canaries, versions
from detector_core.registry.canary import Counts
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
    expected = {"live": str(models / second["version"]), "versions": [second["version"], first["version"]]}
    assert listed == {**expected, "canary": None}
    assert f"live  {second['version']}" in err

    code, back, _ = run("--rollback", "--to", models)
    assert (code, back["version"], back["previous"]) == (0, first["version"], second["version"])

    code, pruned, err = run("--prune", 1, "--to", models)
    expected = {"live": live, "versions": [first["version"]], "canary": None}
    assert pruned == {**expected, "removed": [second["version"]]}
    assert second["version"] in err


def test_a_canary_from_its_start_to_its_end(tmp_path: Path, run: Any) -> None:
    models, second = tmp_path / "models", save_model(tmp_path / "b", run="b", seed=1, auc=0.95)
    live = run(save_model(tmp_path / "a", run="a"), "--to", models)[1]["version"]
    code, started, err = run(second, "--to", models, "--canary", 0.1, "--max-disagreement", 0.2)
    candidate = started["canary"]["candidate"]
    assert (code, started["live"]) == (0, str(models / live))
    assert candidate.startswith("b-")
    assert f"{candidate} answers about 0.1 of the images that {live} is asked about" in err
    assert run("--prune", 1, "--to", models)[1]["removed"] == []

    code, _, err = run("--canary-finish", "--to", models)
    assert code == 1
    assert "the verdicts differ on 0 of 0 images" in err
    canary = canaries.latest(models)
    assert canary
    canaries.record(models, canary, "replica", Counts(images=100, disagreements=3))
    listed, err = run("--list", "--to", models)[1:]
    assert (listed["canary"]["state"], listed["canary"]["counts"]["disagreements"]) == ("agrees", 3)
    assert f"canary of {candidate} on 0.1 of the images: agrees; the verdicts differ on 3 of 100 images" in err
    code, finished, _ = run("--canary-finish", "--to", models)
    assert (code, finished["version"], finished["previous"]) == (0, candidate, live)

    assert run("--rollback", "--to", models)[1]["version"] == live
    assert run(second, "--to", models, "--canary", 0.1)[0] == 0
    assert run(second, "--to", models)[1]["version"] == candidate
    code, stopped, err = run("--canary-stop", "--to", models)
    assert (code, stopped["canary"]) == (0, None)
    assert f"{candidate}: promoted (the candidate became the live version)" in err


def test_a_rollback_ends_a_canary_at_once(tmp_path: Path, run: Any) -> None:
    models = tmp_path / "models"
    for name, auc in (("a", 0.9), ("b", 0.91)):
        versions.promote(save_model(tmp_path / name, run=name, auc=auc), models)
    canaries.start(models, versions.stage(save_model(tmp_path / "c", run="c", auc=0.92), models), share=0.5)
    assert run("--rollback", "--to", models)[0] == 0
    canary = canaries.latest(models)
    assert canary
    assert canary.outcome == "live_changed"


def test_a_change_that_is_made_is_no_error_because_what_follows_fails(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, third = tmp_path / "models", save_model(tmp_path / "c", run="c", auc=0.92)
    first, second = (
        versions.promote(save_model(tmp_path / name, run=name, auc=auc), models)
        for name, auc in (("a", 0.9), ("b", 0.91))
    )
    canaries.start(models, versions.stage(third, models), share=0.5)
    (models / canaries.CANARY).write_text("damaged")
    code, listed, err = run("--list", "--to", models)
    assert (code, listed["live"], listed["canary"]) == (0, str(models / second), None)
    assert err.count("the canary could not be checked: ") == 1
    for arguments in (("--rollback",), (third, "--force")):
        code, changed, err = run(*arguments, "--to", models)
        assert (code, changed["live"], changed["precision"]) == (0, str(versions.live(models)), "fp32")
        assert f"the canary could not be checked: {models / canaries.CANARY} is damaged" in err
    assert versions.history(models)[1:] == [first]

    def away(*_: object) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(promote, "describe", away)
    monkeypatch.setattr(promote.test_reports, "compare_auc", away)
    for arguments in (("--rollback",), (third, "--force")):
        code, changed, err = run(*arguments, "--to", models)
        assert (code, changed["live"], changed["precision"]) == (0, str(versions.live(models)), None)
        assert "its precision cannot be read at the moment: the disk is away" in err
    assert f"not compared with {first}: the disk is away" in err


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
        (worse, "--to", models, "--canary", 0.1): "--force",
        (good, "--to", models, "--canary", 0.1): "is live in",
        (good, "--to", models, "--canary", 0.6): "--canary is 0.6",
        (good, "--to", tmp_path / "empty", "--canary", 0.1): "no live model",
        (tmp_path / "nowhere", "--to", models, "--canary", 0.1): "artifact.json",
        (good, "--to", models, "--max-disagreement", 0.1): "--max-disagreement belongs to --canary",
        ("--list", "--to", models, "--canary", 0.1): "--canary needs the RUN_OR_MODEL",
        (good, "--canary-finish", "--to", models): "RUN_OR_MODEL",
        ("--canary-finish", "--to", models): "no canary is running",
        ("--canary-stop", "--to", models): "there is no canary",
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
    assert run("--list", "--to", tmp_path / "models")[:2] == (0, {"live": None, "versions": [], "canary": None})


def test_the_help_explains_the_files_and_promotion_does_not_import_ray() -> None:
    code = "import sys; from jobs import promote; print('ray' in sys.modules); promote.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("False")
    assert "MODELS/VERSION" in done.stdout
