"""jobs.leave_out, and --leave-out of jobs.train, on the Ray cluster that the tests of the jobs share."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import manifest, seen
from detector_core.networks import artifacts
from jobs.leave_out import generators
from tests.support.training import arguments


@pytest.fixture
def dataset(writable_dataset: Path) -> Path:
    """A data set of two generators, fakes-0 and fakes-1, and two sets of photographs."""
    data = manifest.load(str(writable_dataset))
    sources = [f"{label}s-{number % 2}" for number, label in enumerate(data.frame["label"])]
    described = {"root": data.root, "name": data.name, "generated": True}
    manifest.save(str(writable_dataset), data.frame.assign(source=sources), **described, audit={})
    return writable_dataset


@pytest.mark.usefixtures("shared_ray")
def test_a_generator_is_left_out_and_compared_with_the_model_that_has_seen_it(
    spec_file: Path, dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    command = arguments(spec_file, dataset, tmp_path, "each", "--epochs", "1", "--source", "fakes-1")
    done = run_job("leave_out", *command)
    assert done.code == 0, done.messages
    comparison = json.loads((tmp_path / "each" / "left_out.json").read_text())
    assert [row["source"] for row in comparison["rows"]] == ["fakes-1"]
    assert done.result["worst"] == comparison["worst"] == comparison["rows"][0]["source"]
    assert {path.name for path in (tmp_path / "each").iterdir()} == {
        *(f"left_out.{ending}" for ending in ("json", "html", "csv", "tex")),
        *("generators.png", "generators.svg"),
    }

    run = tmp_path / "each-without-fakes-1"
    artifact = artifacts.read(run / "model")
    assert artifact.data["left_out"] == ["fakes-1"]
    assert artifact.data["counts"]["train"] == {"real": 8, "fake": 4}
    known = seen.read(str(run / "model"))
    assert known is not None
    assert known["use"].value_counts().to_dict() == {
        split: sum(n.values()) for split, n in artifact.data["counts"].items() if split != "test"
    }
    report = json.loads((run / "model" / "evaluation" / "test" / "report.json").read_text())
    assert report["images"] == {"real": 4, "fake": 2}
    assert report["calibration"]["chosen_on"]["n"] == 6
    apart = next(row for row in report["sources"]["rows"] if row["left_out"])
    assert (apart["source"], apart["images"]) == ("fakes-1", {"real": 0, "fake": 2})
    assert "fakes-1, left out of training" in (run / "model" / "evaluation" / "test" / "report.html").read_text()
    row = next(row for row in comparison["rows"] if row["source"] == "fakes-1")
    assert row["left_out"]["auc"] == apart["auc"]
    assert row["reals_flagged_rate"] == report["metrics"]["reals_flagged_rate"]
    assert "left_out" not in artifacts.read(tmp_path / "each-all" / "model").data

    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(weights) == 2
    again = run_job("leave_out", *command)
    assert (again.code, again.result) == (0, done.result)
    assert weights == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    resumed = run_job("train", *arguments(spec_file, dataset, tmp_path, run.name, "--epochs", "1", "--resume"))
    assert "--leave-out was fakes-1, now nothing" in resumed.last_message


def test_what_cannot_be_left_out_is_refused(
    spec_file: Path, dataset: Path, tiny_dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    assert generators(manifest.load(str(dataset))) == ["fakes-0", "fakes-1"], "each of them without --source"
    command = arguments(spec_file, dataset, tmp_path, "without")
    unknown = run_job("train", *command, "--leave-out", "gan")
    known = "the sources of tiny are fakes-0, fakes-1, reals-0, reals-1"
    assert unknown.last_message == f"error: --leave-out gan: {known}"
    emptied = run_job("train", *command, "--leave-out", "fakes-0", "--leave-out", "fakes-1")
    assert emptied.last_message == "error: --leave-out fakes-0, fakes-1: no fake image is left in the train split"
    assert run_job("leave_out", *command, "--source", "gan").last_message == f"error: --leave-out gan: {known}"
    data = manifest.load(str(dataset))
    frame = data.frame[(data.frame["split"] != "test") | (data.frame["source"] != "fakes-1")]
    manifest.save(str(dataset), frame, root=data.root, name="tiny", generated=True, audit={})
    untested = run_job("leave_out", *command, "--source", "fakes-1")
    assert untested.last_message == (
        "error: --source fakes-1: it must be one of several sources of the test split, which has fakes-0, reals-0, "
        "reals-1"
    )
    frame = data.frame[(data.frame["split"] != "test") | (data.frame["label"] != "real")]
    manifest.save(str(dataset), frame, root=data.root, name="tiny", generated=True, audit={})
    fakes_only = run_job("leave_out", *command, "--source", "fakes-1")
    assert fakes_only.last_message == (
        "error: the data set tiny has no real images in its 'test' split, so models could not be compared on it: add "
        "some and prepare it again"
    )
    assert not (tmp_path / "without-all").exists()
    one = run_job("leave_out", *arguments(spec_file, tiny_dataset, tmp_path, "one"))
    assert one.last_message.startswith(
        "error: tiny has fakes of unnamed in both the training and the test split: two or more generators are needed"
    )
