"""Batches the images of concurrent requests: a batch closes when the engine can compute it, not when a clock says so.

An image that finds the engine free is computed at once. While all passes of the engine are busy, images wait, and the
next pass that ends takes its part of them. In a crowd an engine that is free waits for up to ``wait_s`` for the
requests that have just been answered to come again; otherwise every other batch would hold one image.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

MAX_PASSES = 64
Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Computes single items in batches, in threads of its own. Belongs to the event loop that first uses it.

    Args:
        compute: turns a batch into as many results, in order; called in several threads at a time.
        passes: returns how many batches may be computed at a time.
        max_size: most items in a batch.
        wait_s: longest time that items of a crowd wait although a pass is free.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        passes: Callable[[], int],
        max_size: int,
        wait_s: float,
    ) -> None:
        self._compute, self._passes, self._max_size, self._wait_s = compute, passes, max_size, wait_s
        self._executor = ThreadPoolExecutor(MAX_PASSES, thread_name_prefix="batch")  # threads start when needed
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._computing = 0
        self._crowd = False
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, item: Item) -> Result:
        """Returns the result for one item; an item whose caller was cancelled while it waited is not computed."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._start_batches()
        return await future

    def _start_batches(self, *, may_wait: bool = True) -> None:
        free = min(self._passes(), MAX_PASSES) - self._computing
        if free <= 0 or not self._waiting:
            return
        if may_wait and self._crowd and len(self._waiting) < self._max_size:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._stop_waiting)
            return
        if self._timer:
            self._timer.cancel()
            self._timer = None
        started = 0
        while self._waiting and free:
            started += self._start_batch(-(-len(self._waiting) // free))
            free -= 1
        self._crowd = started > 1 or self._computing > 1

    def _start_batch(self, size: int) -> int:
        """Starts a pass with up to ``size`` items, and returns with how many."""
        waiting = [self._waiting.popleft() for _ in range(min(size, self._max_size))]
        batch = [(item, future) for item, future in waiting if not future.done()]
        if batch:
            self._computing += 1
            items = [item for item, _ in batch]
            pass_ = asyncio.get_running_loop().run_in_executor(self._executor, self._compute, items)
            pass_.add_done_callback(lambda computed: self._finish([future for _, future in batch], computed))
        return len(batch)

    def _stop_waiting(self) -> None:
        self._timer = None
        self._start_batches(may_wait=False)

    def _finish(self, futures: list["asyncio.Future[Result]"], computed: "asyncio.Future[Sequence[Result]]") -> None:
        self._computing -= 1
        error = computed.exception()
        for index, future in enumerate(futures):
            if future.done():  # its caller was cancelled
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(computed.result()[index])
        self._start_batches()
