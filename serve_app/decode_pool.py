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
"""Memory an image takes while it is decoded, at its peak: RGBA, the background it is laid on, and RGB."""

T = TypeVar("T")


class DecodePool:
    """A few threads with a common memory budget. A thread finishes its work even if nobody waits for it any more."""

    def __init__(self, threads: int | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._executor = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="decode")
        self._memory_bytes, self._reserved = memory_bytes, 0
        self._changed = threading.Condition()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs ``work`` in a thread. If cancelled while it waits for one, it releases the arguments at once."""
        pending = [partial(work, *arguments)]
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: pending[0]())
        finally:
            pending.clear()

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Waits, in a thread, until ``count`` bytes of the budget are free; an image larger than that runs alone."""
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
