"""Much alike work on many images: shared out to all cores in chunks, the finished ones kept so that it can go on."""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import ray

from detector_core import storage
from detector_core.errors import DetectorError

CHUNK = 256
"""Images of one task, and of one saved part."""
PARTS = ".parts"


class Parts:
    """Chunks that are finished, kept below the folder of the result until that is complete.

    Args:
        folder: of the result.
        key: changes whenever what was found out before no longer holds.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.home, self.folder = storage.join(folder, PARTS), storage.join(folder, PARTS, f"{key}-{CHUNK}")

    def done(self) -> set[int]:
        """Their numbers."""
        found = (name.partition(".") for name in storage.names(self.folder))
        return {int(number) for number, _, kind in found if number and kind == "parquet"}

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Keeps one."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        storage.write_bytes(self._file(number), buffer.getvalue())

    def read(self, count: int) -> pd.DataFrame:
        """The first ``count``, one after the other."""
        tables = (pd.read_parquet(io.BytesIO(storage.read_bytes(self._file(number)))) for number in range(count))
        return pd.concat(tables, ignore_index=True)

    def remove(self) -> None:
        """All of them, of other keys too."""
        storage.delete_folder(self.home)

    def _file(self, number: int) -> str:
        return storage.join(self.folder, f"{number:06}.parquet")


def share(task: Any, calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Runs a remote function over many arguments, a few more at once than there are cores; yields as they finish."""
    room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    todo, pending = enumerate(calls), {}
    while True:
        for number, call in itertools.islice(todo, room - len(pending)):
            pending[task.remote(*call)] = number
        if not pending:
            return
        (first,), _ = ray.wait(list(pending), num_returns=1)
        try:
            result = ray.get(first)
        except ray.exceptions.RayTaskError as error:
            # Ray adds the worker's traceback to the message; ours is one line.
            raise error.cause if isinstance(error.cause, DetectorError | OSError) else error from None
        yield pending.pop(first), result
