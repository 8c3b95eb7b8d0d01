"""jobs.relearn: a new generator is learnt, promoted and rolled back; a round that does not pass changes nothing."""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector_core import storage
from detector_core.data import canary_set, feedback, review, round_log
from detector_core.errors import BadData
from detector_core.networks import artifacts
from detector_core.registry import lineage, test_reports, versions
from jobs import relearn
from jobs.run import round_watch
from tests.support.progress import Process
from tests.support.tagged import MODEL, arguments, give_accepted, hashed_dataset, live_model, tagged_bytes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hashed_dataset(tmp_path_factory.mktemp("relearn"), {"train": 60, "valid": 30, "test": 24})


@pytest.fixture
def weak_models(tmp_path: Path, dataset: Path) -> Path:
    """A registry whose live model is wrong about half of the images of each class."""
    versions.promote(live_model(tmp_path / "weak", dataset, balanced=True), tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def models(tmp_path: Path, dataset: Path) -> Path:
    """A registry whose live model calls nearly everything real, so that it flags no reals."""
    versions.promote(live_model(tmp_path / "live", dataset), tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.usefixtures("shared_ray")
def test_a_killed_round_is_started_again_promoted_rolled_back_and_names_its_tags(
    weak_models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round is killed while it computes features; what it leaves is no lock, and images for the next one."""
    monkeypatch.setattr(relearn.rounds.relearn, "LEARNING_RATE", 0.01)  # the live last layer is random
    models = weak_models
    folder, before = tmp_path / "feedback", versions.history(models)[0]
    ids = give_accepted(folder, 30)
    waiting = feedback.Store(folder, 10**8).add(tagged_bytes(999, "fake"), "fake", model=MODEL).id
    command = [str(word) for word in arguments(models, folder, dataset, "--promote", "--per-giver", 100)]
    process = Process([sys.executable, "-m", "jobs.relearn", *command])
    process.wait_until(lambda: any((tmp_path / "cache").rglob("*.npz")))
    process.send_signal(signal.SIGKILL)
    process.finish()
    assert versions.history(models) == [before]
    assert not (folder / round_log.ROUNDS).exists()
    assert len([*(folder / feedback.ROUND_IMAGES).iterdir()]) == 60  # here, and nowhere else, deletion reaches them

    done = run_job("relearn", *command)
    assert done.code == 0, done.messages
    result = done.result
    assert (result["passed"], result["rung"], result["failed"]) == (True, "head", [])
    assert (result["tags"] + result["held_out"], result["left_out"]) == (60, 0)
    assert versions.history(models) == [result["promoted"], before]
    version = models / result["promoted"]
    recorded = artifacts.read(version).training[artifacts.LINEAGE]
    assert recorded["parent"] == before
    assert sorted(recorded["tags"] + recorded["held_out_tags"]) == sorted(ids)
    assert waiting not in recorded["tags"]
    assert lineage.versions_using(models, recorded["tags"][:1]) == [result["promoted"]]
    (report,) = test_reports.read(version).values()
    assert report["split"] == "test"
    kept = json.loads((Path(result["round"]) / round_log.ROUND).read_text())
    assert (kept["passed"], kept["tags"]) == (True, recorded["tags"])
    back = run_job("promote", "--rollback", "--to", models)
    assert (back.result["version"], versions.history(models)[0]) == (before, before)
    shutil.rmtree(result["round"])  # its report has plots
    assert len([path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")]) == 61  # no copy is kept


def test_a_round_that_flags_more_reals_promotes_nothing_and_says_so(
    models: Path, dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    folder, before = tmp_path / "feedback", versions.history(models)
    give_accepted(folder, 30)
    done = run_job("relearn", *arguments(models, folder, dataset, "--promote", "--rung", "thresholds"))
    assert (done.code, done.result["passed"], done.result["promoted"]) == (3, False, None)
    assert "reals flagged on the test split" in done.result["failed"]
    assert "FAILED  reals flagged on the test split: " in done.messages
    assert "nothing is promoted: thresholds does not pass (reals flagged on the test split" in done.last_message
    assert versions.history(models) == before
    assert done.result["model"] is None
    assert [path.name for path in Path(done.result["round"]).iterdir()] == [round_log.ROUND]


@pytest.mark.parametrize("moment", ["choose", "write"])
def test_a_tag_that_is_deleted_while_a_round_runs_ends_it(
    moment: str, models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = tmp_path / "feedback", versions.history(models)
    ids = give_accepted(folder, 12)

    module: Any = {"choose": relearn.rounds, "write": round_log}[moment]
    original = getattr(module, moment)

    def delete_and_go_on(*given: Any, **more: Any) -> Any:
        review.delete(folder, ids[:1], reviewer="ben")
        return original(*given, **more)

    monkeypatch.setattr(module, moment, delete_and_go_on)
    done = run_job("relearn", *arguments(models, folder, dataset, "--promote", "--rung", "thresholds"))
    assert done.code == 1
    assert f"1 tags of this round were deleted or are no longer accepted, such as {ids[0]}" in done.last_message
    assert versions.history(models) == before
    assert list(folder.glob(f"{round_log.ROUNDS}/*")) == []
    assert not (folder / feedback.ROUND_IMAGES).exists()


def test_the_report_shows_what_protected_from_wrong_tags(
    models: Path, dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    """One giver tags 16 fakes as real, 6 others one each: the cap takes most of the former, doubt half of the rest."""
    folder, store = tmp_path / "feedback", feedback.Store(tmp_path / "feedback", 10**8)
    give_accepted(folder, 30)
    givers = ["mallory"] * 16 + [f"other {number}" for number in range(6)]
    flipped = {
        store.add(tagged_bytes(200 + number, "fake"), "real", model=MODEL, giver=giver).id: giver
        for number, giver in enumerate(givers)
    }
    review.decide(folder, flipped, "accept", reviewer="anna")
    command = arguments(models, folder, dataset, "--rung", "thresholds", "--per-giver", 6)
    done = run_job("relearn", *command)
    record = json.loads((Path(done.result["round"]) / round_log.ROUND).read_text())
    capped = [tag for tag, why in record["left_out"].items() if why == "its giver has 6 tags in this round already"]
    assert [flipped[tag] for tag in capped] == ["mallory"] * 10
    doubted = [tag for tag, why in record["left_out"].items() if why.startswith("the other tags contradict its label")]
    assert len(set(doubted) & set(flipped)) >= 6, "of the twelve that are left"
    assert len(set(doubted) - set(flipped)) <= 3
    assert f"{len(doubted)} left out: the other tags contradict its label" in done.messages
    assert "10 left out: its giver has 6 tags in this round already" in done.messages


def test_a_disk_that_fills_is_one_line_and_the_next_round_removes_what_is_left(
    models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "feedback"
    give_accepted(folder, 12)
    command = arguments(models, folder, dataset, "--rung", "thresholds")

    def write(round_folder: Path, *_: object, **__: object) -> None:
        (round_folder / artifacts.MODEL_IN_RUN).mkdir(parents=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(round_folder / round_log.ROUND))

    with monkeypatch.context() as patch:
        patch.setattr(round_log, "write", write)
        done = run_job("relearn", *command)
    assert (done.code, done.result) == (1, {})
    assert done.last_message.startswith("error: the disk is full"), done.last_message
    assert not (folder / feedback.ROUND_IMAGES).exists()
    (left,) = (folder / round_log.ROUNDS).iterdir()
    assert run_job("relearn", *command).code == 3
    assert not left.exists() or (left / round_log.ROUND).exists()


def test_what_stops_a_round_is_one_line(models: Path, dataset: Path, tmp_path: Path, run_job: Any) -> None:
    folder = tmp_path / "feedback"
    (tmp_path / "empty").mkdir()
    give_accepted(tmp_path / "few", 2)
    give_accepted(folder, 12)
    record = next((folder / "records").iterdir())
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "records" / record.name).write_text(json.dumps(json.loads(record.read_text()) | {"format": 0}))
    wrong = {
        (models, tmp_path / "nowhere", dataset): "is not a feedback folder",
        (models, tmp_path / "empty", dataset): "has no accepted tags (0 waiting",
        (models, tmp_path / "few", dataset): "and a round needs 5",
        (models, old, dataset): "has format 0, this version reads 1 to 2",
        (tmp_path / "none", folder, dataset): "has no live model",
        (models, folder, tmp_path): "is not a prepared data set",
    }
    for given, part in wrong.items():
        done = run_job("relearn", *arguments(*given))
        assert (done.code, done.result) == (1, {}), part
        assert part in done.last_message
        assert done.last_message.startswith("error: ")
    without_data = run_job("relearn", "--models", models, "--feedback", folder)
    assert "does not carry its training data: name its data set with --data DATASET" in without_data.last_message
    assert (
        "--per-giver is 0" in run_job("relearn", *arguments(*[models, folder, dataset], "--per-giver", 0)).last_message
    )
    no_data = run_job("relearn", "--models", models, "--feedback", folder, "--watch")
    assert no_data.last_message.startswith("error: --watch needs the data set that the live model was trained on")
    nowhere = run_job("relearn", *arguments(models, tmp_path / "nowhere", dataset, "--watch"))
    assert "nowhere is not a feedback folder" in nowhere.last_message
    ftp = run_job("relearn", *arguments(models, folder, dataset, "--watch", 5, "--metrics", "ftp://a"))
    assert ftp.last_message.startswith("error: --metrics ftp://a: give the address")
    for flag, value in (("--workers", 0), ("--new-tags", 0), ("--watch", 0), ("--metrics", "http://a")):
        assert f"error: {flag} " in run_job("relearn", *arguments(models, folder, dataset, flag, value)).last_message
    with storage.locked(folder / feedback.ROUND_LOCK):
        busy = run_job("relearn", *arguments(models, folder, dataset))
    assert "another round is running on" in busy.last_message
    assert review.count_states(review.read(folder))["accepted"] == 24


def test_a_verdict_that_changes_on_the_canary_set_promotes_nothing(
    weak_models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relearn.rounds.relearn, "LEARNING_RATE", 0.01)  # the live last layer is random
    folder, before = tmp_path / "feedback", versions.history(weak_models)
    give_accepted(folder, 30)
    canaries = weak_models / canary_set.IN_MODELS / "press"
    canaries.mkdir(parents=True)
    for seed in range(900, 912):
        (canaries / f"{seed}.png").write_bytes(tagged_bytes(seed, "fake"))
    done = run_job("relearn", *arguments(weak_models, folder, dataset, "--rung", "head", "--per-giver", 100))
    assert (done.code, done.result["failed"]) == (3, ["verdicts changed on the canary set"])
    assert "of 12 (none may change: press/9" in done.messages
    assert versions.history(weak_models) == before

    (canaries / "notes.txt").write_text("no image")
    named = run_job("relearn", *arguments(weak_models, folder, dataset, "--canary-set", canaries))
    assert f"canary set: {canaries}/notes.txt: " in named.last_message
    assert named.last_message.endswith("replace or remove this file")


def test_a_watch_runs_a_round_when_there_are_enough_tags_or_the_scores_drift(
    models: Path, dataset: Path, tmp_path: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is followed by what happens before the next one; the last one interrupts the watch."""
    folder, drift, rounds_run = tmp_path / "feedback", [0.1], []
    ids = give_accepted(folder, 3)
    monkeypatch.setattr(round_watch.drift_metric, "read", lambda _: drift[0])

    def run(_: object) -> dict[str, Any]:
        rounds_run.append(round_log.new_tags(folder))
        if len(rounds_run) == 1:
            raise BadData("too few")
        record = {"tags": sorted(rounds_run[-1]), "held_out_tags": [], "left_out": {}}
        storage.write_bytes(
            folder / round_log.ROUNDS / f"{len(rounds_run)}" / round_log.ROUND, json.dumps(record).encode()
        )
        return {"passed": True}

    def give() -> None:
        ids.extend(give_accepted(folder, 4))  # six of them again, and two new ones

    looks = [lambda: None, lambda: drift.append(drift.pop() + 0.3), lambda: None, give, lambda: drift.insert(0, 0.0)]

    def sleep(seconds: float) -> None:
        assert seconds == 5
        if not looks:
            raise KeyboardInterrupt
        looks.pop(0)()

    monkeypatch.setattr(relearn, "_run", run)
    monkeypatch.setattr(round_watch, "time", SimpleNamespace(sleep=sleep))
    watch = ["--watch", 5, "--new-tags", 8, "--metrics", "http://127.0.0.1:1/metrics"]
    done = run_job("relearn", *arguments(models, folder, dataset, *watch))
    assert done.code == 130
    assert [len(tags) for tags in rounds_run] == [6, 8], "drift, then enough tags; a round that failed waits for others"
    assert "a round begins: the scores drift (0.40, above 0.25), and there are 6 new tags" in done.messages
    assert "error: too few; waiting for other tags" in done.messages
    assert "a round begins: 8 new accepted tags" in done.messages
