"""Requests share threads: none holds every thread, and all advance."""

import threading

import pytest

from serve_app.fair_executor import FairExecutor


def test_one_request_never_holds_every_thread() -> None:
    executor, release, started = FairExecutor(3, "test"), threading.Event(), threading.Semaphore(0)

    def block() -> None:
        started.release()
        release.wait()

    blocked = [executor.submit("crowd", block) for _ in range(4)]
    assert started.acquire(timeout=30)
    assert started.acquire(timeout=30)  # two of the three threads are held
    try:
        for _ in range(3):
            assert executor.submit("ordinary", lambda: "answered").result(30) == "answered"
        assert [future.running() for future in blocked] == [True, True, False, False]
    finally:
        release.set()
    for future in blocked:
        future.result(30)


def test_the_request_that_holds_the_fewest_threads_is_next() -> None:
    executor, order = FairExecutor(2, "test"), list[str]()
    releases = {name: threading.Event() for name in ("crowd", "other")}
    both = [executor.submit(name, release.wait) for name, release in releases.items()]
    last = [
        executor.submit(request, lambda name=name: order.append(name))
        for request, name in (("crowd", "crowd 1"), ("crowd", "crowd 2"), ("other", "other"), ("new", "new"))
    ]
    releases["other"].set()  # one thread is free, while the crowd holds the other
    last[3].result(30)
    releases["crowd"].set()
    for future in both + last:
        future.result(30)
    assert order[0] == "other"
    assert order[1] == "new"
    assert order[2:] == ["crowd 1", "crowd 2"]


def test_a_single_thread_serves_one_after_the_other() -> None:
    executor = FairExecutor(1, "test")
    assert [executor.submit("a", lambda n=n: n).result(30) for n in range(3)] == [0, 1, 2]


def test_errors_reach_the_caller_and_cancelled_tasks_are_dropped() -> None:
    executor, release = FairExecutor(2, "test"), threading.Event()
    held = executor.submit("a", release.wait)
    dropped, next_ = executor.submit("a", release.wait), executor.submit("a", lambda: 1 // 0)
    assert dropped.cancel()
    release.set()
    assert held.result(30)
    with pytest.raises(ZeroDivisionError):
        next_.result(30)
    assert executor.submit("a", lambda: "goes on").result(30) == "goes on"
