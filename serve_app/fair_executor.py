"""Threads that requests share fairly: none of them holds every thread, and all advance when there are many."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Task:
    request: Hashable
    future: "Future[Any]"
    work: Callable[[], Any]


class FairExecutor:
    """Runs the tasks of many requests in threads.

    The next task is always one of the request that holds the fewest threads, and among these the oldest. One thread is
    kept free of any single request: a request with many tasks takes ``threads - 1`` at most, so that the first task of
    another request starts at once.

    Args:
        threads: at least two, or else one request may hold the only thread.
        name: of the threads, for debuggers.
    """

    def __init__(self, threads: int, name: str) -> None:
        self.per_request = max(1, threads - 1)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._held: Counter[Hashable] = Counter()

    def submit(self, request: Hashable, work: Callable[[], T]) -> "Future[T]":
        """Queues a task of a request. A future that is cancelled before its task starts drops it."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append(_Task(request, future, work))
        self._executor.submit(self._work)
        return future

    def _work(self) -> None:
        """Runs tasks until none may run: a request at its limit goes on in the threads that it holds."""
        while task := self._take():
            try:
                if task.future.set_running_or_notify_cancel():
                    _run(task)
            finally:
                self._release(task)
                del task  # so that an idle thread keeps nothing alive

    def _take(self) -> _Task | None:
        with self._lock:
            allowed = [task for task in self._waiting if self._held[task.request] < self.per_request]
            task = min(allowed, key=lambda task: self._held[task.request], default=None)
            if task:
                self._waiting.remove(task)
                self._held[task.request] += 1
            return task

    def _release(self, task: _Task) -> None:
        with self._lock:
            self._held[task.request] -= 1
            self._held += Counter()  # drops requests that hold none


def _run(task: _Task) -> None:
    try:
        result = task.work()
    except BaseException as error:  # as concurrent.futures does: the error belongs to who waits
        task.future.set_exception(error)
    else:
        task.future.set_result(result)
