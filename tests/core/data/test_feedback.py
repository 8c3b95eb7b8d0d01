"""detector_core.data.feedback: gifts are kept whole, without metadata, up to a limit."""

import json
import os
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.core.test_images import SECRET, noise, personal, saved

from detector_core.data import feedback
from detector_core.errors import BadConfig, BadData, BadImage, InsufficientResources, TooManyPixels
from detector_core.images.decode import decode

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


def test_a_gift_is_kept_with_its_label_and_without_metadata(tmp_path: Path) -> None:
    data = personal("JPEG", 6)
    name = feedback.Store(tmp_path / "new", 10**6).add(data, "fake", model=MODEL, verdict="real", request_id="abc")
    (record,) = feedback.read(tmp_path / "new")
    assert (record.id, record.label, record.verdict, record.request_id) == (name, "fake", "real", "abc")
    assert (record.model, record.consent) == (MODEL, True)
    kept = (tmp_path / "new" / record.image).read_bytes()
    assert sha256(kept).hexdigest() == record.sha256
    assert record.image == f"images/{record.sha256}.jpg"
    assert record.sha256[:16] in name
    assert SECRET not in kept
    assert (decode(kept) == decode(data)).all()


def test_the_same_image_is_kept_once_with_each_record_in_order(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**6)
    names = [store.add(saved(noise()), label, model=MODEL) for label in ("real", "fake", "real")]
    records = list(feedback.read(tmp_path))
    assert [record.id for record in records] == names == sorted(names)
    assert [record.label for record in records] == ["real", "fake", "real"]
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_full_store_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(noise())
    store = feedback.Store(tmp_path, len(data) + 1000)
    store.add(data, "real", model=MODEL)
    with pytest.raises(InsufficientResources, match="feedback folder"):
        store.add(saved(noise(size=(50, 50))), "real", model=MODEL)
    with pytest.raises(InsufficientResources, match="feedback folder"):
        feedback.Store(tmp_path, len(data) + 1000).add(saved(noise(size=(50, 50))), "real", model=MODEL)
    assert len(list(feedback.read(tmp_path))) == 1
    monkeypatch.setattr(feedback, "FREE_BYTES", 10**18)
    with pytest.raises(InsufficientResources, match="disk"):
        feedback.Store(tmp_path, 10**9).add(data, "real", model=MODEL)


def test_what_is_no_gift_leaves_nothing(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**6)
    with pytest.raises(BadImage):
        store.add(b"text", "real", model=MODEL)
    with pytest.raises(TooManyPixels):
        store.add(saved(noise()), "real", model=MODEL, max_pixels=10)
    with pytest.raises(BadData, match="label"):
        store.add(saved(noise()), "maybe", model=MODEL)
    assert list(tmp_path.iterdir()) == []
    assert list(feedback.read(tmp_path)) == []


def test_gifts_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**7)
    data = [saved(noise(size=(20 + n, 20))) for n in range(12)]
    threads = [threading.Thread(target=store.add, args=(one, "real"), kwargs={"model": MODEL}) for one in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(feedback.read(tmp_path))) == 12
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".png", ".json"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"id": "x"}'])
def test_a_torn_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_bytes(content)
    with pytest.raises(BadData, match=r"a\.json"):
        list(feedback.read(tmp_path))


def test_a_record_of_another_format_is_named(tmp_path: Path) -> None:
    name = feedback.Store(tmp_path, 10**6).add(saved(noise()), "real", model=MODEL)
    where = tmp_path / "records" / f"{name}.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"format": 2}))
    with pytest.raises(BadData, match=f"{where} has format 2: 1 was expected"):
        list(feedback.read(tmp_path))


def test_a_folder_is_tried_and_made_before_anything_is_given(tmp_path: Path) -> None:
    feedback.Store(tmp_path / "deep" / "new", 10**6).probe()
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", tmp_path / "deep" / "new"]
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match=rf"feedback_folder {tmp_path / 'file'} cannot be written to \(.+\)"):
        feedback.Store(tmp_path / "file", 10**6).probe()


def test_what_another_process_takes_away_while_it_is_counted_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, scandir = tmp_path / "images" / ".scratch", os.scandir
    scratch.mkdir(parents=True)
    (scratch / "half").touch()
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nowhere")  # listed, and not there

    def going(where: Any) -> Any:
        if str(where) == str(scratch):
            (scratch / "half").unlink(missing_ok=True)
            scratch.rmdir()
        return scandir(where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", going)
        name = feedback.Store(tmp_path, 10**6).add(saved(noise()), "real", model=MODEL)
    assert not scratch.exists()
    assert [record.id for record in feedback.read(tmp_path)] == [name]
