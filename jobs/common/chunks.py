"""The same work on many images, in chunks on all cores; finished chunks are stored, so that a job can resume."""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import ray

from detector_core import storage
from detector_core.errors import DetectorError

CHUNK = 256
"""Images per task, and per stored chunk."""
STORE = ".parts"


class ChunkStore:
    """Finished chunks, stored below the folder of the result until it is complete.

    Args:
        folder: of the result.
        key: a value that changes when earlier chunks are no longer valid.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.home, self.folder = storage.join(folder, STORE), storage.join(folder, STORE, f"{key}-{CHUNK}")

    def done(self) -> set[int]:
        """The numbers of the stored chunks."""
        names = (name.partition(".") for name in storage.names(self.folder))
        return {int(number) for number, _, suffix in names if number and suffix == "parquet"}

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Stores a chunk."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        storage.write_bytes(self._file(number), buffer.getvalue())

    def read(self, count: int) -> pd.DataFrame:
        """Reads the first ``count`` chunks as one table."""
        tables = (pd.read_parquet(io.BytesIO(storage.read_bytes(self._file(number)))) for number in range(count))
        return pd.concat(tables, ignore_index=True)

    def remove(self) -> None:
        """Deletes all chunks, also those of other keys."""
        storage.delete_folder(self.home)

    def _file(self, number: int) -> str:
        return storage.join(self.folder, f"{number:06}.parquet")


def map_chunks(task: Any, calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Calls a remote function with many arguments; yields (number of the call, result) as the calls finish."""
    at_a_time = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # a few more than there are cores
    todo = enumerate(calls)
    pending: dict[Any, int] = {}
    while True:
        for number, call in itertools.islice(todo, at_a_time - len(pending)):
            pending[task.remote(*call)] = number
        if not pending:
            return
        (finished,), _ = ray.wait(list(pending), num_returns=1)
        try:
            result = ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            # Ray adds the traceback of the worker to the message; a job prints one line.
            raise error.cause if isinstance(error.cause, DetectorError | OSError) else error from None
        yield pending.pop(finished), result
