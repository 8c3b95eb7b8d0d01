"""The memory that decoding threads share."""

import asyncio
import threading
import time

from serve_app.decode_pool import DecodePool


def test_images_wait_for_memory_and_one_beyond_the_budget_runs_alone() -> None:
    pool = DecodePool(threads=4, memory_bytes=100)
    lock = threading.Lock()
    sizes_running: list[int] = []
    samples: list[list[int]] = []

    def work(size: int) -> None:
        with pool.reserve(size):
            with lock:
                sizes_running.append(size)
                samples.append(list(sizes_running))
            time.sleep(0.02)
            with lock:
                sizes_running.remove(size)

    async def run() -> None:
        await asyncio.gather(*(pool.run(work, size) for size in (60, 60, 40, 1000, 30, 70, 100)))

    asyncio.run(run())
    assert len(samples) == 7
    assert all(sum(sample) <= 100 or sample == [1000] for sample in samples)
    assert [1000] in samples
