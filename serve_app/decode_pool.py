"""Threads that decode uploads, and the memory that they share, so that the event loop is never blocked.

A plain image of ordinary size, whose cost its structure bounds, is decoded in the thread; every other file of a
stranger in a child process that the thread waits for. One request with many images never holds every thread
(:mod:`serve_app.fair_executor`). A request that nobody waits for any more, because its time is up or its client has
left, ends its children and frees its threads.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from detector_core.errors import TooCostly
from detector_core.images import decode, decoder, structure
from detector_core.images.budget import CpuBudget, OverBudget
from detector_core.images.child import Cancellation
from detector_core.images.decode import OpenedImage
from detector_core.images.decoder import BYTES_PER_PIXEL, SandboxedImage
from serve_app.fair_executor import FairExecutor

MEMORY_BYTES = 2**30
"""Memory that the images being decoded in one pool may take together."""
MAX_THREAD_PIXELS = 2**24
"""Maximum number of pixels of an image that is decoded in a thread, which cannot be interrupted: half a second or
less. Larger images are decoded in a child, whatever their format."""

P = ParamSpec("P")
T = TypeVar("T")


class Job(Cancellation):
    """Work for one request in a thread of a pool.

    Attributes:
        budget: CPU time that the request may take.
    """

    def __init__(self, pool: "DecodePool", budget: CpuBudget) -> None:
        super().__init__()
        self._pool, self.budget = pool, budget

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Blocks the calling thread until ``count`` bytes of the pool's memory are free. Raises Cancelled."""
        with self.on_cancel(self._pool.wake):
            self._pool.take(count, self)
        try:
            yield
        finally:
            self._pool.release(count)

    @contextmanager
    def opened(
        self, data: bytes, *, max_pixels: int, accepted: Collection[str]
    ) -> Iterator[OpenedImage | SandboxedImage]:
        """An image, with memory for its pixels; in a child process unless it is plain and of ordinary size.

        Args:
            data, max_pixels, accepted: see :func:`detector_core.images.decode.decode_file`.

        Raises:
            BadImage, Cancelled: see :meth:`opened_in_child`.
        """
        with self.counted():
            file = structure.reduce(data, accepted)
        if file.is_plain:
            with decode.opened_file(file, max_pixels=max_pixels) as image:
                if image.width * image.height <= MAX_THREAD_PIXELS:
                    with self.reserve(image.width * image.height * BYTES_PER_PIXEL):
                        yield image
                    return
        with self.opened_in_child(data, max_pixels=max_pixels, accepted=accepted) as sandboxed:
            yield sandboxed

    @contextmanager
    def opened_in_child(
        self, data: bytes, *, max_pixels: int, accepted: Collection[str], copies: int = 1
    ) -> Iterator[SandboxedImage]:
        """An image in a child process, with memory for its pixels.

        Args:
            data, max_pixels, accepted: see :func:`detector_core.images.decoder.opened_in_child`.
            copies: how many images of its size are decoded at a time.

        Raises:
            BadImage, Cancelled: see there.
        """
        with (
            decoder.opened_in_child(
                data, max_pixels=max_pixels, accepted=accepted, budget=self.budget, cancellation=self
            ) as image,
            self.reserve(copies * image.width * image.height * BYTES_PER_PIXEL),
        ):
            yield image

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the CPU time that this thread takes for a ``with`` block. Raises TooCostly if it was too much."""
        self.check()
        started = time.thread_time()
        try:
            yield
        finally:
            self._charge(time.thread_time() - started)

    def _charge(self, seconds: float) -> None:
        try:
            self.budget.charge(seconds)
        except OverBudget:
            raise TooCostly(f"analyzing it takes more than {self.budget.seconds:g} s of CPU time") from None


class DecodePool:
    """Threads with a common memory budget.

    Args:
        threads: None for one per core, which one request may hold together, and one more for everybody else.
    """

    def __init__(self, threads: int | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self.threads = threads or 1 + (os.cpu_count() or 1)
        self._executor = FairExecutor(self.threads, "decode")
        self._memory_bytes, self._reserved = memory_bytes, 0
        self._changed = threading.Condition()
        self._started: dict[Job, float] = {}

    async def run(
        self,
        budget: CpuBudget,
        work: Callable[Concatenate[Job, P], T],
        /,
        *arguments: P.args,
        **more: P.kwargs,
    ) -> T:
        """Runs ``work`` in a thread, with the job as its first argument.

        Calls with the same budget belong to one request, which never holds every thread.

        If this coroutine is cancelled, the job is too: what waits for a thread is dropped at once, with its arguments.
        """
        job = Job(self, budget)
        pending = [lambda: work(job, *arguments, **more)]

        def run() -> T:
            self._started[job] = time.monotonic()
            try:
                return pending[0]()
            finally:
                del self._started[job]

        try:
            return await asyncio.wrap_future(self._executor.submit(budget, run))
        finally:
            pending.clear()
            job.cancel()

    @property
    def longest_s(self) -> float:
        """For how many seconds the oldest job has been in its thread; 0 if there is none."""
        started = min(self._started.copy().values(), default=None)
        return 0.0 if started is None else time.monotonic() - started

    def take(self, count: int, job: Job) -> None:
        """Reserves memory, see :meth:`Job.reserve`. More than the whole budget waits for all of it."""
        count = min(count, self._memory_bytes)
        with self._changed:
            self._changed.wait_for(lambda: job.cancelled or self._reserved + count <= self._memory_bytes)
            job.check()
            self._reserved += count

    def release(self, count: int) -> None:
        """Releases what :meth:`take` has reserved."""
        with self._changed:
            self._reserved -= min(count, self._memory_bytes)
        self.wake()

    def wake(self) -> None:
        """Lets the jobs that wait for memory look again."""
        with self._changed:
            self._changed.notify_all()


async def gather(coroutines: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Runs coroutines concurrently and returns their results in order; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
