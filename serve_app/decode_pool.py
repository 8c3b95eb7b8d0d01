"""Threads that decode uploads, and the memory that they share, so that the event loop is never blocked."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

MEMORY_BYTES = 2**30
"""Memory that the images being decoded in one process may take together."""
BYTES_PER_PIXEL = 12
"""Peak memory of an image while it is decoded: RGBA, the background it is composited onto, and RGB."""

T = TypeVar("T")


class DecodePool:
    """Threads with a common memory budget. A thread finishes its work even if its request was cancelled meanwhile.

    Args:
        threads: None for one per core.
    """

    def __init__(self, threads: int | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._executor = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="decode")
        self._memory_bytes, self._reserved = memory_bytes, 0
        self._changed = threading.Condition()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs ``work`` in a thread. If cancelled while waiting for a free thread, releases the arguments at once."""
        pending = [partial(work, *arguments)]
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: pending[0]())
        finally:
            pending.clear()

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Blocks the calling thread until ``count`` bytes are free. More than the whole budget waits for all of it."""
        count = min(count, self._memory_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._reserved + count <= self._memory_bytes)
            self._reserved += count
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= count
                self._changed.notify_all()


async def gather(coroutines: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Runs coroutines concurrently and returns their results in order; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
