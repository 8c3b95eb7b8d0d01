"""Threads that decode, the memory they share, and requests that nobody waits for any more."""

import asyncio
import threading
import time

import pytest
from PIL import Image

from detector_core.errors import TooCostly
from detector_core.images import decoder
from detector_core.images.budget import CpuBudget
from detector_core.images.child import Cancelled
from detector_core.images.decode import decode
from detector_core.images.decoder import SandboxedImage
from detector_core.images.formats import BUILT_IN as FORMATS
from serve_app.decode_pool import DecodePool, Job
from tests.support.attacks import flat_image, repeated_scans
from tests.support.images import encode, noise


def test_images_wait_for_memory_and_one_beyond_the_budget_runs_alone() -> None:
    pool = DecodePool(threads=4, memory_bytes=100)
    lock = threading.Lock()
    sizes_running: list[int] = []
    samples: list[list[int]] = []

    def work(job: Job, size: int) -> None:
        with job.reserve(size):
            with lock:
                sizes_running.append(size)
                samples.append(list(sizes_running))
            time.sleep(0.02)
            with lock:
                sizes_running.remove(size)

    async def run() -> None:
        await asyncio.gather(*(pool.run(CpuBudget(), work, size) for size in (60, 60, 40, 1000, 30, 70, 100)))

    asyncio.run(run())
    assert len(samples) == 7
    assert all(sum(sample) <= 100 or sample == [1000] for sample in samples)
    assert [1000] in samples


def test_a_cancelled_job_stops_waiting_for_memory_and_frees_its_thread() -> None:
    pool = DecodePool(threads=1, memory_bytes=100)
    waits, ended = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        waits.set()
        try:
            with job.reserve(60):
                raise AssertionError("there is no memory")
        except Cancelled:
            ended.set()
            raise

    async def run() -> None:
        with Job(pool, CpuBudget()).reserve(60):
            running = asyncio.create_task(pool.run(CpuBudget(), work))
            await asyncio.to_thread(waits.wait)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert await asyncio.to_thread(ended.wait, 10)
        assert await pool.run(CpuBudget(), lambda _: 3) == 3

    asyncio.run(run())


def test_a_job_that_waits_for_a_thread_is_dropped_when_it_is_cancelled() -> None:
    pool, release, calls = DecodePool(threads=1), threading.Event(), list[str]()

    async def run() -> None:
        first = asyncio.create_task(pool.run(CpuBudget(), lambda _: release.wait()))
        second = asyncio.create_task(pool.run(CpuBudget(), lambda _: calls.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        await first
        await pool.run(CpuBudget(), lambda _: calls.append("third"))

    asyncio.run(run())
    assert calls == ["third"]


def test_cancelling_ends_the_decoder_within_an_image() -> None:
    pool = DecodePool(threads=1)
    data = repeated_scans(flat_image("JPEG", (4000, 3000)), 70)  # a second of CPU time
    opened, pids = threading.Event(), list[int]()

    def work(job: Job) -> None:
        with job.opened(data, max_pixels=50_000_000, accepted=FORMATS) as image:
            pids.append(image._child.pid)
            opened.set()
            image.decode()

    async def run() -> None:
        running = asyncio.create_task(pool.run(CpuBudget(), work))
        await asyncio.to_thread(opened.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await pool.run(CpuBudget(), lambda _: pids[0] in [idle.pid for idle in decoder.CHILDREN.idle]) is False

    asyncio.run(run())
    decoder.CHILDREN.stop_idle()


@pytest.mark.parametrize(
    ("data", "in_child"),
    [
        (encode(noise(), "JPEG"), False),
        (encode(noise(), "PNG"), False),
        (encode(noise(), "WEBP"), False),
        (encode(noise(), "JPEG", progressive=True), True),
        (encode(noise(), "GIF"), True),
        (encode(Image.new("L", (5000, 4000)), "JPEG"), True),
    ],
    ids=["JPEG", "PNG", "WebP", "progressive JPEG", "GIF", "large JPEG"],
)
def test_plain_images_of_ordinary_size_need_no_child(data: bytes, in_child: bool) -> None:
    job = Job(DecodePool(threads=1), CpuBudget(20))
    with job.opened(data, max_pixels=50_000_000, accepted=FORMATS) as image:
        assert isinstance(image, SandboxedImage) == in_child
        assert (image.decode().image_HWC == decode(data)).all()
    decoder.CHILDREN.stop_idle()


def test_the_oldest_job_tells_whether_decoding_is_stuck() -> None:
    pool, release = DecodePool(threads=2), threading.Event()
    assert pool.longest_s == 0

    async def run() -> None:
        stuck = asyncio.create_task(pool.run(CpuBudget(), lambda _: release.wait()))
        while not pool.longest_s:
            await asyncio.sleep(0.01)
        before = pool.longest_s
        assert await pool.run(CpuBudget(), lambda _: "goes on") == "goes on"
        assert pool.longest_s > before
        release.set()
        await stuck

    asyncio.run(run())
    assert pool.longest_s == 0


def test_the_cpu_time_of_a_thread_counts() -> None:
    job = Job(DecodePool(threads=1), CpuBudget(0.05))
    with job.counted():
        pass

    def compute() -> None:
        with job.counted():
            started = time.thread_time()
            while time.thread_time() - started < 0.06:
                pass

    with pytest.raises(TooCostly, match=r"more than 0\.05 s of CPU time"):
        compute()
    job.cancel()
    with pytest.raises(Cancelled), job.counted():
        pass


def test_images_of_one_request_share_its_budget() -> None:
    job, data = Job(DecodePool(threads=1), CpuBudget(20)), encode(noise())
    for _ in range(2):
        with job.opened(data, max_pixels=10_000, accepted=FORMATS) as image:
            assert image.decode().image_HWC.shape == (30, 40, 3)
    assert 0 < job.budget.used < 1
