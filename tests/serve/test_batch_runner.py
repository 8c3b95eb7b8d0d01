"""Those who work on batches: nothing is lost and nothing has two results, whatever happens to them."""

import asyncio
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from detector_core.errors import BadConfig
from detector_core.registry.predictor import Predictor
from serve_app import batches, url_fetch
from serve_app.batch_store import MAX_ATTEMPTS, Batch, BatchStore
from serve_app.batches import BatchRunner
from serve_app.errors import Refusal, Unavailable
from tests.support.http_service import FailingClient, PredictorClient, image_bytes, make_app

IMAGES = [image_bytes(seed=seed) for seed in range(3)]
VOLATILE = {"index", "request_id", "timing_ms"}


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    """A store on which nobody works."""
    return BatchStore(str(tmp_path / "store"), files_per_client=5, keep_s=60)


def test_a_client_may_not_fill_the_queue(store: BatchStore) -> None:
    for owner in ("a", "b"):
        store.create([b"1", b"2", b"3"], owner, None, None)
        with pytest.raises(Refusal, match="3 files of yours wait: at most 5 may") as refused:
            store.create([b"4", b"5", b"6"], owner, None, None)
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "60"})


@pytest.mark.parametrize("key", [None, "the same request"])
def test_nor_with_requests_at_the_same_time(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    pending, both = store.pending, threading.Barrier(2)

    def counted_by_both() -> Iterator[Batch]:
        waiting = list(pending())
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return iter(waiting)

    def create(_: int) -> str:
        try:
            return store.create([b"1", b"2", b"3"], "a", key, None).id
        except Refusal as refused:
            return str(refused.status_code)

    monkeypatch.setattr(store, "pending", counted_by_both)
    with ThreadPoolExecutor(2) as pool:
        answers = set(pool.map(create, range(2)))
    (batch,) = pending()
    assert answers == ({batch.id} if key else {batch.id, "429"})


def run(predictor: Predictor, store: BatchStore, until: Any, model_client: Any = None) -> None:
    """Lets a runner work on a store until a condition holds."""
    app = make_app(predictor, model_client)

    async def work() -> None:
        task = asyncio.create_task(batches.BatchRunner(app.state.service, store).run())
        while not until():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(work(), 20))


def is_over(store: BatchStore, batch: Batch) -> Any:
    return lambda: store.progress(batch).ended is not None


CONSUMER = """
import sys, time
from serve_app.batch_store import BatchStore
store = BatchStore(sys.argv[1], 5, 60)
(batch,) = store.pending()
with store.claimed(batch) as is_mine:
    assert is_mine
    assert store.begin(batch, 0) == 1
    store.put_result(batch, 0, {"index": 0, "error": {"code": "first", "message": "of the one that was killed"}})
    assert store.begin(batch, 1) == 1
    print("working", flush=True)
    time.sleep(60)
"""


def test_a_killed_consumer_loses_nothing_and_nothing_is_done_twice(predictor: Predictor, store: BatchStore) -> None:
    batch = store.create(IMAGES, "owner", None, None)
    folder = str(store._folder)
    consumer = subprocess.Popen([sys.executable, "-c", CONSUMER, folder], stdout=subprocess.PIPE, text=True)
    assert consumer.stdout
    assert consumer.stdout.readline() == "working\n"
    with store.claimed(batch) as is_mine:
        assert not is_mine, "two work on the same batch"
    os.kill(consumer.pid, signal.SIGKILL)
    consumer.wait()
    consumer.stdout.close()
    run(predictor, store, is_over(store, batch))
    results = store.results(batch, 0, 9)
    assert [result["index"] for result in results] == [0, 1, 2]
    assert results[0]["error"]["code"] == "first", "a result was replaced"
    assert all(result["image"]["verdict"] for result in results[1:])
    assert store.begin(batch, 1) == 0
    assert not (store._folder / batch.id / "files").exists()


def test_a_file_that_ends_the_service_each_time_is_given_up(predictor: Predictor, store: BatchStore) -> None:
    batch = store.create(IMAGES[:2], "owner", None, None)
    assert [store.begin(batch, 0) for _ in range(MAX_ATTEMPTS)] == [1, 2, 3]
    run(predictor, store, is_over(store, batch))
    given_up, answered = store.results(batch, 0, 9)
    assert given_up["error"]["message"] == "the service ended 3 times while it worked on this file"
    assert answered["image"]["verdict"]
    assert store.progress(batch).failed == 1


def test_a_busy_service_answers_later_and_an_error_of_its_own_is_logged(
    predictor: Predictor, store: BatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    class BusyAtFirst(PredictorClient):
        asked = 0

        async def predict(self, image_SSC: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable("too many images are waiting", retry_after_s=0)
            return await super().predict(image_SSC)

    batch = store.create(IMAGES[:1], "owner", None, None)
    run(predictor, store, is_over(store, batch), BusyAtFirst(predictor))
    assert store.results(batch, 0, 1)[0]["image"]["verdict"]
    batch = store.create(IMAGES[:1], "owner", None, None)
    run(predictor, store, is_over(store, batch), FailingClient(RuntimeError("broken")))
    assert store.results(batch, 0, 1)[0]["error"]["code"] == "internal"
    assert f"batch {batch.id}, file 0" in caplog.text


def test_a_canceled_batch_keeps_its_results_and_loses_its_files(predictor: Predictor, store: BatchStore) -> None:
    batch = store.create(IMAGES, "owner", None, None)
    store.put_result(batch, 0, {"index": 0, "error": {"code": "x", "message": "y"}})
    assert store.progress(batch).status == "running"
    store.cancel(batch)
    assert store.progress(batch).status == "canceled"
    run(predictor, store, is_over(store, batch))
    assert (store.progress(batch).status, store.progress(batch).done) == ("canceled", 1)
    assert list(store.pending()) == []


def test_the_webhook_is_signed_and_called_again_if_it_fails(
    predictor: Predictor, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, bytes, dict[str, str]]] = []

    async def post(address: str, body: bytes, headers: dict[str, str]) -> int:
        calls.append((address, body, headers))
        if len(calls) == 1:
            raise Refusal(422, "the URL cannot be used", "bad_url")
        return 500 if len(calls) == 2 else 204

    monkeypatch.setattr(url_fetch, "post", post)
    monkeypatch.setattr(batches, "REPORT_DELAYS_S", (0, 0, 0))
    batch = store.create(IMAGES[:1], "owner", None, "https://example.org/hook")
    report = store._folder / batch.id / "reported.json"
    run(predictor, store, report.exists)
    assert json.loads(report.read_text()) == {"delivered": True}
    assert len(calls) == 3
    address, body, headers = calls[-1]
    assert address == "https://example.org/hook"
    assert json.loads(body) == {"id": batch.id, "status": "done", "files": 1, "failed": 0}
    signed = f"{headers['X-Timestamp']}.".encode() + body
    digest = hmac.new(batch.webhook_secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Signature"] == f"sha256={digest}"


def test_of_several_replicas_one_calls_the_webhook(
    predictor: Predictor, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    async def post(address: str, body: bytes, headers: dict[str, str]) -> int:  # noqa: ARG001 -- of the interface
        calls.append(address)
        await asyncio.sleep(0.1)  # the other replica looks meanwhile
        return 204

    monkeypatch.setattr(url_fetch, "post", post)
    monkeypatch.setattr(batches, "POLL_S", 0.01)
    batch = store.create(IMAGES[:1], "owner", None, "https://example.org/hook")
    other = BatchStore(str(store._folder), files_per_client=5, keep_s=60)
    service = make_app(predictor).state.service

    async def work() -> None:
        tasks = [asyncio.create_task(batches.BatchRunner(service, each).run()) for each in (store, other)]
        while not store.is_reported(batch):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(asyncio.wait_for(work(), 20))
    assert calls == ["https://example.org/hook"]


def test_a_folder_that_fails_for_a_while_stops_no_runner(
    predictor: Predictor, store: BatchStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batches, "FAILED_S", 0.01)
    batch, begin, failures = store.create(IMAGES[:1], "owner", None, None), store.begin, [OSError(28, "No space left")]

    def fail_once(*arguments: Any) -> int:
        if failures:
            raise failures.pop()
        return begin(*arguments)

    monkeypatch.setattr(store, "begin", fail_once)
    run(predictor, store, is_over(store, batch))
    assert "the folder of batches cannot be used" in caplog.text
    assert store.progress(batch).done == 1


def test_a_runner_that_gets_work_in_the_moment_it_is_canceled_ends(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: BatchRunner) -> None:
        await asyncio.sleep(0)

    async def ends() -> bool:
        service: Any = None  # there is no batch to ask it about
        runner = BatchRunner(service, store)
        running = asyncio.create_task(runner.run())
        for _ in range(5):  # now it waits
            await asyncio.sleep(0)
        runner.wake()
        await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=1)
        return bool(done)

    monkeypatch.setattr(BatchRunner, "_run_once", nothing)
    assert asyncio.run(ends())


def test_results_are_deleted_when_their_time_is_over(tmp_path: Path) -> None:
    store = BatchStore(str(tmp_path), files_per_client=5, keep_s=0)
    batch = store.create([b"x"], "owner", None, None)
    left = tmp_path / ".new-left-by-a-killed-process"
    left.mkdir()
    os.utime(left, (1, 1))
    store.sweep()
    assert store.get(batch.id, "owner") == batch
    store.end(batch)
    store.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match=r"batches_folder .*file cannot be used \(File exists\)"):
        BatchStore(str(tmp_path / "file"), 5, 60)
