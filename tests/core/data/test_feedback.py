"""detector_core.data.feedback: donations are stored completely, without metadata, up to a limit."""

import json
import os
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import feedback
from detector_core.errors import BadConfig, BadData, BadImage, InsufficientResources, TooManyPixels
from detector_core.images.decode import decode
from tests.support.images import SECRET, encode, noise, personal_image

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


def test_a_donation_is_stored_with_its_label_and_without_metadata(tmp_path: Path) -> None:
    data = personal_image("JPEG", 6)
    donation = feedback.Store(tmp_path / "new", 10**6).add(data, "fake", model=MODEL, verdict="real", request_id="abc")
    (record,) = feedback.read(tmp_path / "new")
    assert donation == feedback.Donation(id=record.id, is_new=True)
    assert (record.label, record.verdict, record.request_id) == ("fake", "real", "abc")
    assert (record.model, record.consent) == (MODEL, True)
    stored = (tmp_path / "new" / record.image).read_bytes()
    assert sha256(stored).hexdigest() == record.sha256
    assert record.image == f"images/{record.sha256}.jpg"
    assert record.id == f"{record.sha256[:32]}-fake"
    assert SECRET not in stored
    assert (decode(stored) == decode(data)).all()


def test_the_same_image_with_the_same_label_counts_once_and_records_are_in_order(tmp_path: Path) -> None:
    stores = [feedback.Store(tmp_path, 10**6) for _ in range(2)]  # of two replicas
    given = [
        stores[number % 2].add(encode(noise()), label, model=MODEL, request_id=str(number))
        for number, label in enumerate(("real", "fake", "real", "real", "fake"))
    ]
    assert [donation.is_new for donation in given] == [True, True, False, False, False]
    records = feedback.read(tmp_path)
    assert [(record.label, record.request_id) for record in records] == [("real", "0"), ("fake", "1")]
    assert [record.id for record in records] == [given[0].id, given[1].id]
    assert [donation.id for donation in given[2:]] == [given[0].id, given[0].id, given[1].id]
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_others_who_give_the_same_image_with_the_same_label_are_counted_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = feedback.Store(tmp_path, 10**6), encode(noise())

    def give(giver: str, label: str = "fake") -> str:
        return store.add(data, label, model=MODEL, giver=giver).id

    id_ = give("a")
    assert feedback.count_givers(tmp_path, id_) == 1
    for giver in ("a", "b", "b", "", "c"):
        assert give(giver) == id_
    assert feedback.count_givers(tmp_path, id_) == 3
    assert feedback.count_givers(tmp_path, give("d", "real")) == 1
    assert feedback.read(tmp_path)[0].giver == "a"
    monkeypatch.setattr(feedback, "MAX_GIVERS", 2)
    give("d")
    assert feedback.count_givers(tmp_path, id_) == 3


def test_a_gift_that_counts_already_is_accepted_by_a_full_store(tmp_path: Path) -> None:
    data = encode(noise())
    store = feedback.Store(tmp_path, len(data) + 1000)
    assert [store.add(data, "real", model=MODEL).is_new for _ in range(3)] == [True, False, False]


def test_what_relearning_writes_into_the_folder_does_not_fill_it(tmp_path: Path) -> None:
    data = encode(noise())
    for name in (feedback.ROUND_RUNS, "rounds/1/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_bytes(bytes(len(data) + 1000))
    assert feedback.Store(tmp_path, len(data) + 1000).add(data, "real", model=MODEL).is_new


def test_a_full_store_accepts_no_more_donations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(noise())
    store = feedback.Store(tmp_path, len(data) + 1000)
    store.add(data, "real", model=MODEL)
    with pytest.raises(InsufficientResources, match="feedback folder"):
        store.add(encode(noise(size=(50, 50))), "real", model=MODEL)
    with pytest.raises(InsufficientResources, match="feedback folder"):
        feedback.Store(tmp_path, len(data) + 1000).add(encode(noise(size=(50, 50))), "real", model=MODEL)
    assert len(feedback.read(tmp_path)) == 1
    monkeypatch.setattr(feedback, "FREE_BYTES", 10**18)
    with pytest.raises(InsufficientResources, match="disk"):
        feedback.Store(tmp_path, 10**9).add(data, "fake", model=MODEL)


def test_a_rejected_donation_leaves_no_files(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**6)
    with pytest.raises(BadImage):
        store.add(b"text", "real", model=MODEL)
    with pytest.raises(TooManyPixels):
        store.add(encode(noise()), "real", model=MODEL, max_pixels=10)
    with pytest.raises(BadData, match="label"):
        store.add(encode(noise()), "maybe", model=MODEL)
    assert list(tmp_path.iterdir()) == []
    assert feedback.read(tmp_path) == []


def test_donations_at_the_same_time_are_all_stored(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**7)
    images = [encode(noise(size=(20 + n, 20))) for n in range(12)]
    threads = [threading.Thread(target=store.add, args=(data, "real"), kwargs={"model": MODEL}) for data in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(feedback.read(tmp_path)) == 12
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".png", ".json"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"id": "x"}'])
def test_the_error_for_an_invalid_record_names_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_bytes(content)
    with pytest.raises(BadData, match=r"a\.json"):
        feedback.read(tmp_path)


def test_the_error_for_a_record_of_another_format_names_its_file(tmp_path: Path) -> None:
    record_id = feedback.Store(tmp_path, 10**6).add(encode(noise()), "real", model=MODEL).id
    path = tmp_path / "records" / f"{record_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))
    with pytest.raises(BadData, match=f"{path} has format 3, this version reads 1 to 2"):
        feedback.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "ab-fake"),
        ("time", 3),
        ("time", "yesterday"),
        ("sha256", "ab"),
        ("image", "../../../../etc/passwd"),
        ("image", "images/../records/a.json"),
        ("label", "cat"),
        ("label", ["fake"]),
        ("model", "tiny"),
        ("p_fake", "abc"),
        ("p_fake", float("nan")),
        ("giver", None),
        ("consent", "yes"),
    ],
)
def test_an_impossible_value_of_a_record_is_one_line_with_file_and_field(
    tmp_path: Path, field: str, value: object
) -> None:
    record_id = feedback.Store(tmp_path, 10**6).add(encode(noise()), "real", model=MODEL, p_fake=0.5).id
    path = tmp_path / "records" / f"{record_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    named = "Invalid isoformat" if value == "yesterday" else f"{field} is "
    with pytest.raises(BadData, match=f"{path} is not a feedback record: {named}.*; restore it from a backup"):
        feedback.read(tmp_path)


def test_a_record_of_the_first_format_is_read_without_score_and_giver(tmp_path: Path) -> None:
    record_id = feedback.Store(tmp_path, 10**6).add(encode(noise()), "real", model=MODEL, p_fake=0.9, giver="ab").id
    path = tmp_path / "records" / f"{record_id}.json"
    fields = json.loads(path.read_text())
    assert (fields["format"], fields["p_fake"], fields["giver"]) == (2, 0.9, "ab")
    del fields["p_fake"], fields["giver"]
    path.write_text(json.dumps(fields | {"format": 1}))
    (record,) = feedback.read(tmp_path)
    assert (record.p_fake, record.giver, record.format) == (None, "", 1)


def test_a_record_that_is_deleted_while_the_folder_is_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "deleted.json").symlink_to(tmp_path / "nowhere")  # listed, but does not exist
    assert feedback.read(tmp_path) == []


def test_probing_creates_the_folder_and_checks_that_it_is_writable(tmp_path: Path) -> None:
    feedback.Store(tmp_path / "deep" / "new", 10**6).probe()
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", tmp_path / "deep" / "new"]
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match=rf"feedback_folder {tmp_path / 'file'} cannot be written to \(.+\)"):
        feedback.Store(tmp_path / "file", 10**6).probe()


def test_files_that_another_process_deletes_while_the_folder_is_measured_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, scandir = tmp_path / "images" / ".temporary", os.scandir
    temporary.mkdir(parents=True)
    (temporary / "incomplete").touch()
    (tmp_path / "images" / "deleted.png").symlink_to(tmp_path / "nowhere")  # listed, but does not exist

    def delete_and_scan(folder: Any) -> Any:
        if str(folder) == str(temporary):
            (temporary / "incomplete").unlink(missing_ok=True)
            temporary.rmdir()
        return scandir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", delete_and_scan)
        record_id = feedback.Store(tmp_path, 10**6).add(encode(noise()), "real", model=MODEL).id
    assert not temporary.exists()
    assert [record.id for record in feedback.read(tmp_path)] == [record_id]
