"""What a model was trained and chosen on, and what a set of images repeats of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector_core.data import seen
from detector_core.data.duplicates import MAX_DISTANCE, near_matches
from detector_core.data.inspect import HASH_BYTES
from detector_core.errors import BrokenArtifact


def hashes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, HASH_BYTES), dtype=np.uint8)


def changed(packed: np.ndarray, bits: int) -> np.ndarray:
    """The hash with its first bits flipped."""
    flipped = np.unpackbits(packed)
    flipped[:bits] ^= 1
    return np.packbits(flipped)


def frame(splits: dict[str, int], seed: int = 0) -> pd.DataFrame:
    names = [split for split, count in splits.items() for _ in range(count)]
    packed = hashes(len(names), seed)
    return pd.DataFrame(
        {
            "path": [f"{seed}/{number}.jpg" for number in range(len(names))],
            "split": names,
            "sha256": [f"{seed:02x}{number:062x}" for number in range(len(names))],
            "phash": [row.tobytes().hex() for row in packed],
        }
    )


def test_copies_and_near_copies_are_counted_and_named(tmp_path: Path) -> None:
    trained = frame({"train": 5, "valid": 3, "test": 4})
    (tmp_path / seen.SEEN).write_bytes(seen.record(trained))
    known = seen.read(str(tmp_path))
    assert known is not None
    assert known["use"].tolist() == ["train"] * 5 + ["valid"] * 3
    others = frame({"test": 6}, seed=1)
    others.loc[0, ["sha256", "phash"]] = trained.loc[6, ["sha256", "phash"]]
    near, far = (changed(hashes(12, 0)[2], bits) for bits in (MAX_DISTANCE, MAX_DISTANCE + 1))
    others.loc[1, "phash"], others.loc[2, "phash"] = near.tobytes().hex(), far.tobytes().hex()
    others.loc[3, ["sha256", "phash"]] = trained.loc[9, ["sha256", "phash"]]
    found = seen.overlap(known, others)
    assert (found.images, found.exact, found.near, found.found) == (6, 1, 1, True)
    assert found.examples == (
        {"path": "1/0.jpg", "use": "valid", "exact": True},
        {"path": "1/1.jpg", "use": "train", "exact": False},
    ), "the test image of its own data set is new to it"
    assert seen.Overlap.from_dict(found.to_dict()) == found
    assert not seen.overlap(known, frame({"test": 3}, seed=2)).found


def test_tags_are_remembered_with_what_was_learnt_before(tmp_path: Path) -> None:
    before, tags = seen.of_images(frame({"train": 2})), frame({"test": 2}, seed=3)
    replayed = frame({"train": 2, "valid": 1})
    content = seen.extended(before, replayed, tags.drop(columns="split"))
    assert content is not None
    (tmp_path / seen.SEEN).write_bytes(content)
    known = seen.read(str(tmp_path))
    assert known is not None
    assert known["use"].tolist() == ["train", "train", "valid", "tags", "tags"]
    assert seen.overlap(known, tags).exact == 2
    assert seen.extended(None, tags) is None, "half of it would look like all of it"


def test_what_is_not_known_is_none_with_the_reason(tmp_path: Path) -> None:
    rows = frame({"test": 2})
    assert seen.read(str(tmp_path)) is None
    unknown = seen.overlap(None, rows)
    assert (unknown.exact, unknown.near, unknown.reason) == (None, None, seen.UNKNOWN)
    short = seen.overlap(seen.of_images(rows.assign(split="train", phash="00")), rows)
    assert (short.exact, short.near, short.reason) == (2, None, seen.OTHER_HASHES)
    (tmp_path / seen.SEEN).write_bytes(b"PAR1")
    with pytest.raises(BrokenArtifact, match=r"seen\.parquet cannot be read"):
        seen.read(str(tmp_path))


def test_the_nearest_is_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector_core.data.duplicates.BLOCK", 3)
    others = hashes(10, 4)
    ours = np.stack([changed(others[7], 3), changed(others[1], 200), changed(others[4], 60), others[9]])
    others[2] = changed(others[4], 61)
    assert near_matches(ours, others).tolist() == [7, -1, 2, 9], "of two that are near, the nearer one"
    assert near_matches(ours, others[:0]).tolist() == [-1] * 4
