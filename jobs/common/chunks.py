"""Runs the same task on many images, in chunks on all cores, and stores finished chunks so that a job can resume."""

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import ray
from numpy.typing import NDArray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.duplicates import connected_groups, near_duplicate_edges, row_blocks, unpack_hashes
from jobs.common.cluster import original_error

CHUNK_IMAGES = 256
"""Images per task, and per stored chunk."""
STORE_FOLDER = ".parts"


class ChunkStore:
    """Finished chunks of a result, kept in a subfolder of the result's folder until it is complete.

    Args:
        folder: the result's folder or URI.
        key: identifies the input and settings; chunks stored under another key are ignored.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.root = storage.join(folder, STORE_FOLDER)
        self.folder = storage.join(self.root, f"{key}-{CHUNK_IMAGES}")

    def done(self) -> set[int]:
        """The numbers of the stored chunks."""
        names = (name.partition(".") for name in storage.names(self.folder))
        return {int(number) for number, _, suffix in names if number and suffix == "parquet"}

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Stores a finished chunk."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        storage.write_bytes(self._file(number), buffer.getvalue())

    def read(self, count: int) -> pd.DataFrame:
        """Reads the first ``count`` chunks as one table."""
        tables = (pd.read_parquet(io.BytesIO(storage.read_bytes(self._file(number)))) for number in range(count))
        return pd.concat(tables, ignore_index=True)

    def remove(self) -> None:
        """Deletes all chunks, including those of other keys."""
        storage.delete_folder(self.root)

    def _file(self, number: int) -> str:
        return storage.join(self.folder, f"{number:06}.parquet")


def map_chunks(task: Any, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Calls a remote function once for each tuple of arguments; yields (index of the call, result) as calls finish."""
    max_pending = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # more than there are cores, so none idles
    waiting = enumerate(calls)
    pending: dict[Any, int] = {}
    while True:
        for index, call in itertools.islice(waiting, max_pending - len(pending)):
            pending[task.remote(*call)] = index
        if not pending:
            return
        (finished,), _ = ray.wait(list(pending), num_returns=1)
        try:
            result = ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            raise original_error(error) from None
        yield pending.pop(finished), result


def near_duplicate_groups(phashes: pd.Series) -> NDArray[np.int64]:
    """The number of the group of near-duplicates that each image is in, compared on all cores of the cluster."""
    number_N, unique = phashes.factorize()
    hashes = unpack_hashes(list(unique))
    shared, task = ray.put(hashes), ray.remote(near_duplicate_edges)
    calls = [(shared, rows) for rows in row_blocks(len(hashes))]
    results = map_chunks(task, calls)
    edges = [edge for _, edge in tqdm(results, total=len(calls), desc="comparing", unit=" blocks")]
    groups_N: NDArray[np.int64] = connected_groups(len(hashes), edges)[number_N]
    return groups_N
