"""Images that are the same, or nearly so: groups of perceptual hashes that differ in few bits.

Every pair is compared, as blocks of a matrix product: no pair is missed, and 140,000 images take a minute or two
of two cores. The blocks are independent, so a cluster shares them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR: Final = 80
"""Hashes that differ in at most this many of their 544 bits are near-duplicates.

Among the 2.4 million pairs of 2,200 aligned portraits, the same scene differed in at most 74 bits and the nearest
strangers in 97; ten times as many strangers come with every 14 bits more. JPEG quality 30 changes 8 bits (median; at
most 40), half size 6 (24), a crop of 2 % 40 (58).
"""
BLOCK: Final = 2048

Hashes = NDArray[np.uint8]
Edges = NDArray[np.int64]


def unpack(phashes: Sequence[str]) -> Hashes:
    """Hexadecimal hashes as packed bits, shape (N, bytes of a hash)."""
    return np.frombuffer(bytes.fromhex("".join(phashes)), dtype=np.uint8).reshape(len(phashes), -1)


def blocks(count: int) -> list[range]:
    """The rows of each independent piece of work over ``count`` hashes."""
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def near_duplicate_edges(hashes: Hashes, rows: range, distance: int = NEAR) -> Edges:
    """Which of ``rows`` are near which hash at or after them: edges of shape (E, 2).

    Edges that add nothing to the groups are left out, so that there are never more than N of them.
    """
    bits = hashes.shape[1] * 8
    mine = _signs(hashes[rows.start : rows.stop])
    found = []
    for others in blocks(len(hashes)):
        if others.stop <= rows.start:
            continue
        # With signs of +1 and -1 a product is bits - 2 x distance.
        products = mine @ _signs(hashes[others.start : others.stop]).T
        near = products >= bits - 2 * distance
        some = np.flatnonzero(near.any(axis=1))
        left, right = np.nonzero(near[some])
        left, right = some[left] + rows.start, right + others.start
        found.append(np.stack([left, right], axis=1)[left < right])
    edges = np.concatenate(found)
    members = np.unique(edges)
    group_M = groups(len(hashes), [edges])[members]
    _, first, inverse = np.unique(group_M, return_index=True, return_inverse=True)
    forest: Edges = np.stack([members[first[inverse]], members], axis=1)
    return forest[forest[:, 0] < forest[:, 1]]


def groups(count: int, edges: Iterable[Edges]) -> NDArray[np.int64]:
    """The group number of each of ``count`` hashes, shape (count,); those without an edge are alone in theirs."""
    joined = np.concatenate([np.empty((0, 2), dtype=np.int64), *edges])
    graph = coo_array((np.ones(len(joined), dtype=np.int8), (joined[:, 0], joined[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _signs(hashes: Hashes) -> NDArray[np.float32]:
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
