"""detector_core.data.duplicates: groups of hashes that differ in few bits."""

import numpy as np
import pytest

from detector_core.data import duplicates
from detector_core.data.duplicates import connected_groups, near_duplicate_edges, row_blocks, unpack_hashes


def flipped(packed: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """A hash with so many of its bits turned."""
    raw = np.unpackbits(packed)
    raw[np.random.default_rng(seed).choice(len(raw), bits, replace=False)] ^= 1
    return np.packbits(raw)


def grouped(hashes: np.ndarray, distance: int = 80) -> np.ndarray:
    return connected_groups(
        len(hashes), [near_duplicate_edges(hashes, rows, distance) for rows in row_blocks(len(hashes))]
    )


@pytest.fixture
def hashes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 68), dtype=np.uint8)


@pytest.mark.parametrize("block", [7, 40, 1000])
def test_the_distance_decides_at_the_bit_in_every_block(hashes, block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    hashes[33] = flipped(hashes[2], 80, seed=1)
    hashes[34] = flipped(hashes[3], 81, seed=2)
    hashes[39] = hashes[38]
    group_N = grouped(hashes)
    assert group_N[33] == group_N[2]
    assert group_N[38] == group_N[39]
    assert len(set(group_N)) == 38


def test_neighbours_of_neighbours_are_one_group(hashes):
    hashes[1] = flipped(hashes[0], 60, seed=1)
    hashes[2] = flipped(hashes[1], 60, seed=2)
    assert np.bitwise_count(hashes[0] ^ hashes[2]).sum() > 80
    assert len({*grouped(hashes)[:3]}) == 1


def test_many_alike_cost_few_edges(hashes):
    hashes[:] = hashes[0]
    assert len(near_duplicate_edges(hashes, range(0, 40))) == 39
    assert set(grouped(hashes)) == {0}


def test_without_neighbours_everyone_is_alone(hashes):
    assert near_duplicate_edges(hashes, range(0, 40)).shape == (0, 2)
    assert sorted(grouped(hashes)) == list(range(40))


def test_hexadecimal_hashes_come_back_bit_by_bit(hashes):
    assert (unpack_hashes([row.tobytes().hex() for row in hashes]) == hashes).all()
