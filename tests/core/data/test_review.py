"""detector_core.data.review: decisions are kept side by side, only undisputed ones count, deletion leaves nothing."""

import json
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from detector_core import storage
from detector_core.data import feedback, review
from detector_core.errors import BadConfig, BadData, OperationRefused
from tests.support.images import encode, noise

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


def give(
    folder: Path, number: int, label: str = "fake", verdict: str = "", p_fake: float | None = None, giver: str = ""
) -> str:
    """Donates another image for each number; returns its id."""
    data = encode(noise(size=(20 + number, 20)))
    return feedback.Store(folder, 10**7).add(data, label, model=MODEL, verdict=verdict, p_fake=p_fake, giver=giver).id


def states(folder: Path) -> dict[str, str]:
    return {tag.record.id: tag.state for tag in review.read(folder)}


def test_the_most_informative_tags_come_first(tmp_path: Path) -> None:
    given = {
        "agrees": give(tmp_path, 0, "fake", "fake", 0.9),
        "unknown": give(tmp_path, 1, "real"),
        "uncertain": give(tmp_path, 2, "fake", "uncertain", 0.3),
        "contradicts a little": give(tmp_path, 3, "real", "fake", 0.6),
        "contradicts": give(tmp_path, 4, "fake", "real", 0.1),
        "no face": give(tmp_path, 5, "fake", "no_face"),
    }
    names = {id_: name for name, id_ in given.items()}
    order = [names[tag.record.id] for tag in review.read(tmp_path)]
    assert order == ["contradicts", "contradicts a little", "uncertain", "unknown", "no face", "agrees"]


def test_a_tag_that_several_givers_agree_on_comes_earlier_but_not_before_one_that_is_contradicted(
    tmp_path: Path,
) -> None:
    alone = give(tmp_path, 0, "fake", "fake", 0.6, giver="a")
    agreed = give(tmp_path, 1, "fake", "fake", 0.7, giver="a")
    contradicted = give(tmp_path, 2, "fake", "real", 0.4, giver="a")
    assert [tag.record.id for tag in review.read(tmp_path)] == [contradicted, alone, agreed]
    assert give(tmp_path, 1, "fake", "fake", 0.7, giver="b") == agreed
    tags = review.read(tmp_path)
    assert [tag.record.id for tag in tags] == [contradicted, agreed, alone]
    assert [tag.givers for tag in tags] == [1, 2, 1]


def test_the_latest_decision_of_each_reviewer_counts_and_contradictions_are_disputed(tmp_path: Path) -> None:
    id_ = give(tmp_path, 0)
    assert states(tmp_path) == {id_: "waiting"}
    steps = [
        ("accept", "anna", "accepted"),
        ("accept", "anna", "accepted"),
        ("accept", "ben", "accepted"),
        ("reject", "ben", "disputed"),
        ("undo", "anna", "rejected"),
        ("undo", "ben", "waiting"),
        ("accept", "ben", "accepted"),
    ]
    for action, reviewer, expected in steps:
        review.decide(tmp_path, [id_[:6]], action, reviewer=f" {reviewer} ", reason="seen before")
        assert states(tmp_path) == {id_: expected}, (action, reviewer)
    (tag,) = review.read(tmp_path)
    assert [(d.action, d.reviewer) for d in tag.decisions] == [step[:2] for step in steps]
    assert {d.reason for d in tag.decisions} == {"seen before"}
    assert review.count_states([tag]) == {"waiting": 0, "accepted": 1, "rejected": 0, "disputed": 0}


def test_reviewers_at_the_same_time_do_not_overwrite_each_other(tmp_path: Path) -> None:
    ids = [give(tmp_path, number) for number in range(3)]
    threads = [
        threading.Thread(target=review.decide, args=(tmp_path, ids, "accept"), kwargs={"reviewer": f"r{number}"})
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tag in review.read(tmp_path):
        assert {decision.reviewer for decision in tag.decisions} == {f"r{number}" for number in range(8)}


def test_a_decision_about_several_tags_is_recorded_for_all_or_none(tmp_path: Path) -> None:
    id_ = give(tmp_path, 0)
    with pytest.raises(BadData, match=r"'nothing' is not the id of a tag"):
        review.decide(tmp_path, [id_, "nothing"], "accept", reviewer="anna")
    assert states(tmp_path) == {id_: "waiting"}
    assert [d.id for d in review.decide(tmp_path, [id_, id_[:8]], "accept", reviewer="anna")] == [id_]


def test_a_decision_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    twice = [give(tmp_path, 0, "real"), give(tmp_path, 0, "fake")]
    with pytest.raises(BadData, match=r"is the beginning of 2 ids in .*: jobs.review list shows them"):
        review.decide(tmp_path, [twice[0][:32]], "accept", reviewer="anna")
    with pytest.raises(BadData, match="'' is not the id"):
        review.decide(tmp_path, [""], "accept", reviewer="anna")
    with pytest.raises(BadConfig, match="action is 'maybe'"):
        review.decide(tmp_path, twice, "maybe", reviewer="anna")
    with pytest.raises(BadConfig, match="the reviewer has no name"):
        review.decide(tmp_path, twice, "accept", reviewer=" ")
    review.decide(tmp_path, twice, "accept", reviewer="ben")
    for _ in range(2):
        with pytest.raises(OperationRefused, match="anna has decided nothing about"):
            review.decide(tmp_path, twice, "undo", reviewer="anna")
        review.decide(tmp_path, twice[:1], "accept", reviewer="anna")
        review.decide(tmp_path, twice[:1], "undo", reviewer="anna")


def test_deletion_leaves_only_the_log_of_it(tmp_path: Path) -> None:
    real, fake, other = give(tmp_path, 0, "real"), give(tmp_path, 0, "fake"), give(tmp_path, 1)
    review.decide(tmp_path, [real, fake, other], "accept", reviewer="anna", reason="private")
    give(tmp_path, 0, "fake", giver="somebody else")
    image = next(tag.record.image for tag in review.read(tmp_path) if tag.record.id == fake)
    of_a_round = tmp_path / "round-images" / f"{fake}.png"
    of_a_round.parent.mkdir()
    of_a_round.touch()
    checkpoint = tmp_path / feedback.ROUND_RUNS / "network-1" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with storage.locked(tmp_path / feedback.ROUND_LOCK):
        assert review.delete(tmp_path, [fake], reviewer="ben") == [fake]
    assert not of_a_round.exists()
    assert checkpoint.exists()  # a round that is running deletes it itself
    assert set(states(tmp_path)) == {real, other}
    assert (tmp_path / image).exists()  # the other tag is about the same image
    assert review.delete(tmp_path, [real, other], reviewer="ben") == [real, other]
    assert not checkpoint.exists()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != feedback.ROUND_LOCK]
    assert {path.relative_to(tmp_path).as_posix() for path in left} == {
        f"deletions/{id_}.json" for id_ in (real, fake, other)
    }
    assert {json.loads(path.read_bytes())["reviewer"] for path in left} == {"ben"}
    with pytest.raises(BadData, match="is not the id"):
        review.delete(tmp_path, [fake], reviewer="ben")


def test_a_tag_that_somebody_else_deletes_meanwhile_is_skipped_and_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "feedback"
    gone, other = give(folder, 0), give(folder, 1)
    listed = review.find_ids(folder, [gone, other])
    review.delete(folder, [gone], reviewer="anna")
    monkeypatch.setattr(review, "find_ids", lambda *_: listed)
    with pytest.raises(BadData, match=f"{gone} in .* is gone: the tag was deleted meanwhile"):
        review.export(folder, [gone, other], tmp_path / "tags.zip")
    assert review.delete(folder, [gone, other], reviewer="ben") == [other]
    assert json.loads((folder / review.DELETIONS / f"{gone}.json").read_bytes())["reviewer"] == "anna"


def test_a_folder_that_does_not_exist_and_a_damaged_decision_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="nowhere is not a feedback folder"):
        review.read(tmp_path / "nowhere")
    id_ = give(tmp_path, 0)
    review.decide(tmp_path, [id_], "accept", reviewer="anna")
    (path,) = (tmp_path / "decisions" / id_).iterdir()
    good = json.loads(path.read_bytes())
    typed = [{**good, "reviewer": ["x"]}, {**good, "time": 3}, {**good, "time": "then"}, {**good, "reason": None}]
    for fields in ({**good, "format": 2}, {**good, "id": "x"}, {**good, "action": "x"}, [], {"id": "x"}, *typed):
        path.write_text(json.dumps(fields))
        with pytest.raises(BadData, match=f"{path} is not a decision of format 1"):
            review.read(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")  # deleted by another process after it was listed
    assert states(tmp_path) == {id_: "waiting"}


def test_an_export_has_the_records_images_and_decisions_and_age_selects_tags(tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    old, new = give(folder, 0, "real"), give(folder, 1)
    path = folder / feedback.RECORDS / f"{old}.json"
    given = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="microseconds")
    path.write_text(json.dumps({**json.loads(path.read_text()), "time": given}))
    assert (review.older_than(folder, 99), review.older_than(folder, 101)) == ([old], [])
    review.decide(folder, [old], "accept", reviewer="anna")
    assert review.export(folder, [old[:9]], tmp_path / "tags.zip") == [old]
    with zipfile.ZipFile(tmp_path / "tags.zip") as archive:
        (tag,) = json.loads(archive.read("tags.json"))
        image = tag["record"]["image"]
        assert sorted(archive.namelist()) == [image, "tags.json"]
        assert archive.read(image) == (folder / image).read_bytes()
    assert (tag["record"]["time"], tag["decisions"][0]["reviewer"]) == (given, "anna")
    (record,) = (record for record in feedback.read(folder) if record.id == new)
    (folder / record.image).unlink()
    with pytest.raises(BadData, match="is gone: the tag was deleted"):
        review.export(folder, [new], tmp_path / "lost.zip")
    assert not (tmp_path / "lost.zip").exists()
