"""Batches close when the engine is free; a single item never waits."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serve_app.batching import Batcher


class Engine:
    """Doubles numbers, once ``go`` is set; records each batch and how many were computed at a time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[int]) -> list[int]:
        with self._lock:
            self.batches.append(list(items))
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(10)
        with self._lock:
            self.running -= 1
        if -1 in items:
            raise ValueError("a broken engine")
        return [2 * item for item in items]

    async def wait_for_batches(self, count: int) -> None:
        while len(self.batches) < count:
            await asyncio.sleep(0.001)


def run(test: Callable[[Engine], Coroutine[Any, Any, None]]) -> Engine:
    async def with_deadline() -> None:
        async with asyncio.timeout(10):
            await test(engine)

    engine = Engine()
    asyncio.run(with_deadline())
    return engine


def batcher(engine: Engine, passes: int = 1, max_size: int = 4, wait_s: float = 60) -> Batcher[int, int]:
    """A batcher that would wait for a minute, so that a test that waits in vain fails."""
    return Batcher(engine, passes=lambda: passes, max_size=max_size, wait_s=wait_s)


def test_a_single_item_is_computed_at_once_again_and_again() -> None:
    async def test(engine: Engine) -> None:
        engine.go.set()
        of = batcher(engine)
        assert [await of.run(number) for number in (1, 2, 3)] == [2, 4, 6]

    assert run(test).batches == [[1], [2], [3]]


def test_what_arrives_during_a_pass_is_the_next_batch_up_to_the_largest_size() -> None:
    async def test(engine: Engine) -> None:
        of = batcher(engine)
        first = asyncio.create_task(of.run(0))
        await engine.wait_for_batches(1)
        others = [asyncio.create_task(of.run(number)) for number in range(1, 10)]
        await asyncio.sleep(0)
        engine.go.set()
        # The last item is fewer than the largest batch after a crowd: it waits, and goes with the next three.
        assert await asyncio.gather(first, *others[:8]) == [2 * number for number in range(9)]
        assert not others[8].done()
        assert await asyncio.gather(*(of.run(number) for number in (10, 11, 12)), others[8]) == [20, 22, 24, 18]

    assert run(test).batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_after_a_crowd_an_item_waits_for_others_only_so_long() -> None:
    async def test(engine: Engine) -> None:
        engine.go.set()
        of = batcher(engine, wait_s=0.05)
        await asyncio.gather(*(of.run(number) for number in range(3)))
        started = time.monotonic()
        assert await of.run(7) == 14
        assert time.monotonic() - started >= 0.05
        started = time.monotonic()
        assert await of.run(8) == 16
        assert time.monotonic() - started < 0.05

    assert run(test).batches[-2:] == [[7], [8]]


def test_a_crowd_is_divided_among_free_passes_and_no_more_run_at_a_time() -> None:
    async def test(engine: Engine) -> None:
        of = batcher(engine, passes=2, wait_s=0.01)
        running = [asyncio.create_task(of.run(number)) for number in range(2)]
        await engine.wait_for_batches(2)
        waiting = [asyncio.create_task(of.run(number)) for number in range(2, 8)]
        await asyncio.sleep(0)
        engine.go.set()
        assert await asyncio.gather(*running, *waiting) == [2 * number for number in range(8)]

    engine = run(test)
    assert engine.most == 2
    assert engine.batches[:2] == [[0], [1]]
    assert sorted(item for batch in engine.batches for item in batch) == list(range(8))


def test_an_error_reaches_those_of_its_batch_only() -> None:
    async def test(engine: Engine) -> None:
        engine.go.set()
        of = batcher(engine, max_size=1)
        results = await asyncio.gather(*(of.run(number) for number in (1, -1, 3)), return_exceptions=True)
        assert results[::2] == [2, 6]
        assert isinstance(results[1], ValueError)

    run(test)


def test_an_item_that_nobody_waits_for_any_more_is_not_computed() -> None:
    async def test(engine: Engine) -> None:
        of = batcher(engine)
        first = asyncio.create_task(of.run(0))
        await engine.wait_for_batches(1)
        left, stayed = asyncio.create_task(of.run(1)), asyncio.create_task(of.run(2))
        await asyncio.sleep(0)
        left.cancel()
        engine.go.set()
        assert await asyncio.gather(first, stayed) == [0, 4]
        with pytest.raises(asyncio.CancelledError):
            await left

    assert run(test).batches == [[0], [2]]
