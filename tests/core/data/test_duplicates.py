"""detector_core.data.duplicates: groups of hashes that differ in few bits."""

import numpy as np
import pytest

from detector_core.data import duplicates
from detector_core.data.duplicates import connected_groups, near_duplicate_edges, row_blocks, unpack_hashes


def flip_bits(packed: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """The hash with ``bits`` random bits flipped."""
    unpacked = np.unpackbits(packed)
    unpacked[np.random.default_rng(seed).choice(len(unpacked), bits, replace=False)] ^= 1
    return np.packbits(unpacked)


def group_hashes(hashes: np.ndarray, distance: int = 80) -> np.ndarray:
    return connected_groups(
        len(hashes), [near_duplicate_edges(hashes, rows, distance) for rows in row_blocks(len(hashes))]
    )


@pytest.fixture
def hashes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 68), dtype=np.uint8)


@pytest.mark.parametrize("block", [7, 40, 1000])
def test_the_limit_on_the_distance_is_exact_in_every_block(hashes, block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    hashes[33] = flip_bits(hashes[2], 80, seed=1)
    hashes[34] = flip_bits(hashes[3], 81, seed=2)
    hashes[39] = hashes[38]
    group_N = group_hashes(hashes)
    assert group_N[33] == group_N[2]
    assert group_N[38] == group_N[39]
    assert len(set(group_N)) == 38


def test_duplicates_of_duplicates_are_in_one_group(hashes):
    hashes[1] = flip_bits(hashes[0], 60, seed=1)
    hashes[2] = flip_bits(hashes[1], 60, seed=2)
    assert np.bitwise_count(hashes[0] ^ hashes[2]).sum() > 80
    assert len({*group_hashes(hashes)[:3]}) == 1


def test_many_equal_hashes_yield_few_edges(hashes):
    hashes[:] = hashes[0]
    assert len(near_duplicate_edges(hashes, range(0, 40))) == 39
    assert set(group_hashes(hashes)) == {0}


def test_every_hash_without_a_duplicate_has_its_own_group(hashes):
    assert near_duplicate_edges(hashes, range(0, 40)).shape == (0, 2)
    assert sorted(group_hashes(hashes)) == list(range(40))


def test_hexadecimal_hashes_are_unpacked_bit_by_bit(hashes):
    assert (unpack_hashes([row.tobytes().hex() for row in hashes]) == hashes).all()
