"""Works on batches: scores their files one after another, like requests, and reports the end to a webhook."""

import asyncio
import hmac
import json
import logging
import time
from contextlib import suppress
from typing import Any, Final

from detector_core.images import formats, video
from serve_app import answers, url_fetch
from serve_app.batch_store import MAX_ATTEMPTS, Batch, BatchStore
from serve_app.errors import CODES, Refusal, Unavailable
from serve_app.middleware import RequestTimings
from serve_app.service import DetectionService

POLL_S: Final = 1.0
"""How often a replica looks for batches that others have received or left."""
FAILED_S: Final = 30.0
"""Pause after the folder of batches could not be used."""
REPORT_DELAYS_S: Final = (0, 2, 10, 60)
"""Pauses before each attempt to call a webhook."""
_log = logging.getLogger(__name__)


class BatchRunner:
    """Works on the batches of a store, one file at a time, so that requests of people wait little.

    Args:
        service: what answers about each file.
        store: the folder of batches, which other runners share.
    """

    def __init__(self, service: DetectionService, store: BatchStore) -> None:
        self._service, self.store = service, store
        self._added = asyncio.Event()
        self._reports: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Tells the runner that there is a new batch."""
        self._added.set()

    async def run(self) -> None:
        """Works until it is canceled; what it was working on then is left for another runner, or for the next start."""
        try:
            while True:
                self._added.clear()
                pause_s = POLL_S
                try:
                    await self._run_once()
                except OSError:
                    _log.exception("the folder of batches cannot be used, the next attempt is in %g s", FAILED_S)
                    pause_s = FAILED_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):  # wait_for loses a cancellation if the event is set just then
                        await self._added.wait()
        finally:
            for task in self._reports.values():
                task.cancel()

    async def _run_once(self) -> None:
        for batch in await asyncio.to_thread(lambda: list(self.store.pending())):
            with self.store.claimed(batch) as is_mine:
                if is_mine:
                    await self._work(batch)
        for batch in await asyncio.to_thread(lambda: list(self.store.unreported())):
            if batch.id not in self._reports:
                self._reports[batch.id] = asyncio.create_task(self._report(batch))
        await asyncio.to_thread(self.store.sweep)

    async def _work(self, batch: Batch) -> None:
        for index in range(batch.files):
            if self.store.is_canceled(batch):
                break
            attempt = await asyncio.to_thread(self.store.begin, batch, index)
            if attempt:
                result = await self._result(batch, index, attempt)
                await asyncio.to_thread(self.store.put_result, batch, index, {"index": index, **result})
        await asyncio.to_thread(self.store.end, batch)

    async def _result(self, batch: Batch, index: int, attempt: int) -> dict[str, Any]:
        """The answer about a file, or its error; waits while the service is busy."""
        if attempt > MAX_ATTEMPTS:
            return _error(CODES[500], f"the service ended {MAX_ATTEMPTS} times while it worked on this file")
        content = await asyncio.to_thread(self.store.content, batch, index)
        while True:
            try:
                return await self._answer(content)
            except Refusal as refusal:
                return _error(refusal.code, str(refusal.detail))
            except Unavailable as busy:
                await asyncio.sleep(busy.retry_after_s)
            except Exception:
                _log.exception("batch %s, file %d", batch.id, index)
                return _error(CODES[500], "internal error: the service has logged the details under the batch's id")

    async def _answer(self, content: bytes | str) -> dict[str, Any]:
        """The fields ``image`` or ``clip`` of a result. Raises Refusal, Unavailable."""
        service, limits, timings = self._service, self._service.settings.limits, RequestTimings()
        data = await url_fetch.fetch(content, limits.max_bytes) if isinstance(content, str) else content
        is_image = formats.identify(data[: formats.HEAD_BYTES]) is not None
        if not is_image and video.container_of(data) and limits.frames:
            clip, prediction = await service.detect_clip(data, limits.frames, "auto", timings)
            return {"clip": answers.clip_answer(clip, prediction, "", timings).model_dump(mode="json")}
        if len(data) > limits.max_bytes:
            raise Refusal(413, f"the image is larger than {limits.max_bytes / 2**20:g} MiB", budget="bytes")
        ((image, decided),) = await service.detect([data], "auto", False, timings)
        return {"image": answers.image_result(0, image, decided, "", None).model_dump(mode="json")}

    async def _report(self, batch: Batch) -> None:
        """Calls the webhook of a batch that has ended, unless another runner does; gives up after a few attempts."""
        try:
            with self.store.claimed(batch) as is_mine:
                if is_mine and not self.store.is_reported(batch):
                    self.store.reported(batch, delivered=await self._call_webhook(batch))
        except OSError:
            _log.exception("the end of batch %s is reported later", batch.id)
        finally:
            del self._reports[batch.id]

    async def _call_webhook(self, batch: Batch) -> bool:
        """Whether the receiver has taken the signed report."""
        progress = self.store.progress(batch)
        body = json.dumps({"id": batch.id, "status": progress.status, "files": batch.files, "failed": progress.failed})
        for delay_s in REPORT_DELAYS_S:
            await asyncio.sleep(delay_s)
            try:
                if await url_fetch.post(str(batch.webhook), body.encode(), signature(batch, body)) < 300:
                    return True
            except Refusal as refusal:
                _log.warning("webhook of batch %s: %s", batch.id, refusal.detail)
        return False


def signature(batch: Batch, body: str) -> dict[str, str]:
    """The headers that prove to the receiver of a webhook who sends it, and when."""
    now = str(int(time.time()))
    digest = hmac.new(batch.webhook_secret.encode(), f"{now}.{body}".encode(), "sha256").hexdigest()
    return {"X-Timestamp": now, "X-Signature": f"sha256={digest}"}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
