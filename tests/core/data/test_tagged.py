"""detector_core.data.tagged: what protects a round from wrong, planted and leaking tags."""

import dataclasses
import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core.data import feedback, manifest, review, tagged
from detector_core.data.manifest import Manifest
from detector_core.errors import BadData, OperationRefused
from detector_core.images import align, faces, metadata
from detector_core.images.decode import decode
from tests.support.images import encode
from tests.support.tagged import MODEL, give_accepted, hashed_dataset, tagged_bytes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return manifest.load(str(hashed_dataset(tmp_path_factory.mktemp("data"), {"train": 4, "valid": 2, "test": 2})))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def select(folder: Path, data: Manifest, work: Path, **options: Any) -> tagged.Selection:
    return tagged.select(folder, review.read(folder), data, work, **options)


def accept(folder: Path, data: bytes, label: str, giver: str = "") -> str:
    """Donates an image and accepts its tag; returns the id."""
    id_ = feedback.Store(folder, 10**8).add(data, label, model=MODEL, giver=giver).id
    review.decide(folder, [id_], "accept", reviewer="anna")
    return id_


def test_accepted_tags_are_written_as_networks_read_them(tmp_path: Path, data: Manifest, work: Path) -> None:
    ids = give_accepted(tmp_path, 30)
    waiting = feedback.Store(tmp_path, 10**8).add(tagged_bytes(900, "real"), "real", model=MODEL).id
    selection = select(tmp_path, data, work)
    assert set(selection.frame["id"]) == set(ids) - {waiting}
    assert selection.left_out == {}
    assert set(selection.frame["label"]) == {"real", "fake"}
    for row in selection.frame.itertuples():
        assert (work / row.path).read_bytes() == next(tmp_path.glob(f"images/{row.sha256}.*")).read_bytes()
    held_out = selection.frame["held_out"]
    assert 10 <= held_out.sum() <= 30  # a third of 60, drawn from the images
    again = select(tmp_path, data, work).frame
    assert again.equals(selection.frame)


def test_images_of_the_data_set_are_refused_where_they_would_leak(tmp_path: Path, data: Manifest, work: Path) -> None:
    give_accepted(tmp_path, 30)
    rows = {split: data.split(split).iloc[-1] for split in ("train", "valid", "test")}
    given = {}
    for split, row in rows.items():
        image = Image.open(Path(data.root, row["path"]))
        given[split] = accept(tmp_path, encode(image, "JPEG", quality=60), row["label"])  # recompressed
    selection = select(tmp_path, data, work)
    assert given["train"] in set(selection.frame["id"])
    for split in ("valid", "test"):
        reason = f"it shows the same as {rows[split]['path']} of the {split} split"
        assert selection.left_out[given[split]] == reason


def test_of_near_duplicates_one_is_used_and_none_if_they_are_tagged_differently(
    tmp_path: Path, data: Manifest, work: Path
) -> None:
    give_accepted(tmp_path, 30)

    def recompressed(seed: int, quality: int) -> bytes:
        return encode(Image.open(io.BytesIO(tagged_bytes(seed, "real"))), "JPEG", quality=quality)

    alike = [accept(tmp_path, recompressed(701, quality), "fake") for quality in (70, 90)]
    contradicting = [accept(tmp_path, recompressed(801, 70), "fake"), accept(tmp_path, recompressed(801, 90), "real")]
    selection = select(tmp_path, data, work)
    assert len(set(alike) & set(selection.frame["id"])) == 1
    assert [reason for id_, reason in selection.left_out.items() if id_ in alike] == ["a near-duplicate of it is used"]
    assert {selection.left_out[id_] for id_ in contradicting} == {"near-duplicates of it are tagged differently"}


@pytest.mark.parametrize("held_out_first", [False, True])
@pytest.mark.parametrize("given_first", [False, True])
def test_a_near_duplicate_stays_in_the_part_of_the_image_that_was_used_before(
    tmp_path: Path, data: Manifest, work: Path, held_out_first: bool, given_first: bool
) -> None:
    """Round 1 uses an image; in round 2 a copy of it, which alone would be in the other part, ranks first."""
    give_accepted(tmp_path, 30)
    store = feedback.Store(tmp_path, 10**8)

    def is_held_out(data: bytes) -> bool:
        return int(sha256(f"held out {sha256(data).hexdigest()}".encode()).hexdigest(), 16) % 3 == 0

    def give(data: bytes, **more: Any) -> str:
        return store.add(data, "fake", model=MODEL, **more).id

    image = Image.open(io.BytesIO(tagged_bytes(701, "real")))
    encoded = [encode(image, "JPEG", quality=quality) for quality in range(60, 95)]
    files = [metadata.strip(data, decode(data))[0] for data in encoded]
    used = next(file for file in files if is_held_out(file) == held_out_first)
    copy = next(file for file in files if is_held_out(file) != held_out_first)
    ranks_first = {"verdict": "real", "p_fake": 0.0}
    if given_first:  # the copy waits until round 2
        copy_id, used_id = give(copy, **ranks_first), give(used)
    else:
        used_id = give(used)
    review.decide(tmp_path, [used_id], "accept", reviewer="anna")
    parts: dict[str, bool] = {}
    if given_first:
        first = select(tmp_path, data, work)
        parts = dict(zip(first.frame["id"], first.frame["held_out"].tolist(), strict=True))
        assert parts[used_id] == held_out_first
    else:
        copy_id = give(copy, **ranks_first)
    review.decide(tmp_path, [copy_id], "accept", reviewer="anna")
    second = select(tmp_path, data, work, parts=parts)
    rows = second.frame.set_index("id")
    assert rows.loc[copy_id, "held_out"] == held_out_first
    assert second.left_out == {used_id: "a near-duplicate of it is used"}
    both = select(tmp_path, data, work, parts={used_id: held_out_first, copy_id: not held_out_first})
    reason = "earlier rounds have learnt from some of its near-duplicates and held out others"
    assert both.left_out == dict.fromkeys((copy_id, used_id), reason)


def test_one_giver_contributes_no_more_than_the_cap(tmp_path: Path, data: Manifest, work: Path) -> None:
    give_accepted(tmp_path, 30)
    many = [accept(tmp_path, tagged_bytes(1000 + number, "real"), "fake", giver="a") for number in range(5)]
    unknown = [accept(tmp_path, tagged_bytes(3000 + number, "real"), "fake") for number in range(5)]
    few = [accept(tmp_path, tagged_bytes(2000 + number, "real"), "real", giver="b") for number in range(2)]
    selection = select(tmp_path, data, work, per_giver=3)
    assert len(set(many) & set(selection.frame["id"])) == 3
    assert len(set(unknown) & set(selection.frame["id"])) == 3
    assert set(few) <= set(selection.frame["id"])
    assert selection.left_out[next(id_ for id_ in many if id_ in selection.left_out)] == (
        "its giver has 3 tags in this round already"
    )


def test_an_image_that_is_gone_or_damaged_is_left_out(tmp_path: Path, data: Manifest, work: Path) -> None:
    ids = give_accepted(tmp_path, 30)
    images = {tag.record.id: tmp_path / tag.record.image for tag in review.read(tmp_path)}
    images[ids[0]].unlink()
    images[ids[1]].write_bytes(images[ids[1]].read_bytes()[:200])
    selection = select(tmp_path, data, work)
    assert selection.left_out[ids[0]] == "its image was deleted"
    assert set(selection.left_out) == {ids[0], ids[1]}


def test_faces_of_photographs_are_cut_out(
    tmp_path: Path, data: Manifest, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    ids = give_accepted(tmp_path, 30)
    face = faces.Face(box=(0, 0, 32, 32), score=1.0, landmarks=np.zeros((5, 2), np.float32))
    first = next(tag.record.id for tag in review.read(tmp_path))
    found = iter([[], *[[face]] * (len(ids) - 1)])
    monkeypatch.setattr(align, "detect", lambda _: next(found))
    photographs = dataclasses.replace(data, generated=False)
    selection = select(tmp_path, photographs, work)
    assert selection.left_out == {first: "no face was found"}
    assert len(list(work.iterdir())) == len(ids) - 1


def test_too_few_tags_are_refused_with_the_reason(tmp_path: Path, data: Manifest, work: Path) -> None:
    store = feedback.Store(tmp_path / "few", 10**8)
    store.add(tagged_bytes(0, "real"), "real", model=MODEL)
    with pytest.raises(BadData, match=r"few has no accepted tags \(1 waiting, 0 accepted, 0 rejected, 0 disputed\)"):
        select(tmp_path / "few", data, work)
    for number in range(8):
        accept(tmp_path / "one", tagged_bytes(number, "real"), "real")
    with pytest.raises(BadData, match=r"one has 0 accepted fake tags to learn from, and a round needs 5: accept more"):
        select(tmp_path / "one", data, work)
    for image in (tmp_path / "one" / "images").iterdir():
        image.unlink()
    with pytest.raises(BadData, match=r"left out: 8 because its image was deleted\)"):
        select(tmp_path / "one", data, work)


def test_a_data_set_with_other_hashes_is_refused(tmp_path: Path, work: Path, tiny_dataset: Path) -> None:
    give_accepted(tmp_path, 6)
    with pytest.raises(BadData, match="the data set tiny has perceptual hashes of another length: prepare it again"):
        select(tmp_path, manifest.load(str(tiny_dataset)), work)


def test_the_images_of_a_round_do_not_outlive_it_and_its_tags_must_stay(tmp_path: Path, data: Manifest) -> None:
    give_accepted(tmp_path, 30)
    with tagged.round_images(tmp_path) as images:
        selection = select(tmp_path, data, images)
        assert any(images.iterdir())
        killed = images / "left.png"
        killed.touch()
    assert not images.exists()
    images.mkdir()
    killed.touch()
    with tagged.round_images(tmp_path) as images:
        assert list(images.iterdir()) == []
    tagged.check_unchanged(tmp_path, selection)
    first = selection.frame["id"].iloc[0]
    review.decide(tmp_path, [first], "reject", reviewer="anna")
    with pytest.raises(OperationRefused, match=f"1 tags of this round were deleted .* such as {first}: start it again"):
        tagged.check_unchanged(tmp_path, selection)
