"""A canary on a service: some images are scored by the candidate, too, and get its answer.

Every ingress decides by the bytes of an image whether the candidate answers about it, so an image gets the same version
wherever it arrives. Both versions score it; the live one answers if the candidate is not loaded, fails or is late, so a
candidate never costs an answer. Each ingress counts what it compared, shares its counts through MODELS and applies the
rule to all of them (:mod:`detector_core.registry.canaries`). Without a canary nothing here touches a request.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from detector_core.errors import DetectorError, StorageUnavailable
from detector_core.registry import canaries, versions
from detector_core.registry.canary import FAILURES, Answer, Canary, Comparison, Counts, Status
from detector_core.registry.predictor import ModelInfo, Predictor
from serve_app.batching import Batcher
from serve_app.errors import Unavailable
from serve_app.pipeline import DecodedImage, ImagePrediction, ModelClient, add_heatmap, predict_image
from serve_app.settings import Settings

LATE_S: Final = 5.0
"""How much longer than the live version the candidate may take for an image: later than that counts as an error."""
LATE_PART: Final = 0.5
"""The same, as a part of what is then left of the request's time: being late for a request with less time than that
gets the live answer and does not count, for a loaded service delays both versions."""
REMEMBERED: Final = 50_000
"""How many images an ingress remembers, so that the same image counts once."""
T = TypeVar("T")
_log = logging.getLogger("ray.serve")


class NotLoaded(Unavailable):
    """The candidate is not in memory where it was asked for: not yet, or no more."""

    def __init__(self) -> None:
        super().__init__("the candidate is not loaded")


class Candidate(Generic[T]):
    """The candidate in a process that runs the model: ``current`` is the result of ``load``, None without a canary.

    Args:
        load: turns a model folder into what ``current`` should hold.
    """

    def __init__(self, models: str, load: Callable[[Path], T]) -> None:
        self._models, self._load, self._id = models, load, ""
        self.current: T | None = None

    def update(self) -> None:
        """Loads the candidate of a new canary, and drops that of one that has ended.

        A candidate that cannot be loaded ends the canary; a store that cannot be reached is tried again.
        """
        try:
            canary = canaries.latest(self._models)
            if canary is None or canary.outcome:
                self._id, self.current = "", None
            elif canary.id != self._id:
                self.current = None
                self._try(canary)
                self._id = canary.id
        except (OSError, StorageUnavailable) as error:
            _log.warning("the canary in %s cannot be read at the moment: %s", self._models, error)
        except DetectorError as error:
            self._id, self.current = "", None
            _log.error("there is no canary in %s: %s", self._models, error)

    def _try(self, canary: Canary) -> None:
        try:
            self.current = self._load(versions.fetch(versions.locate(self._models, canary.candidate, canaries.CANARY)))
        except (OSError, StorageUnavailable):
            raise
        except Exception as error:  # a runtime may raise anything for a file it cannot use
            _log.exception("the candidate %s cannot be loaded, so the canary ends", canary.candidate)
            canaries.not_loaded(self._models, canary, f"{type(error).__name__}: {error}")
        else:
            _log.info("loaded %s, which answers about %g of the images", canary.candidate, canary.share)


class CandidatePredictor:
    """A candidate in memory. It has batches of its own, so that it fails alone, and no part in the replica's health."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor = predictor
        self.batcher = Batcher(
            predictor.predict,
            passes=lambda: predictor.passes,
            max_size=settings.max_batch_size,
            wait_s=settings.batch_wait_s,
        )


@dataclass
class _Run:
    """One canary on this ingress.

    Attributes:
        counts, seen: what was compared here; only the event loop changes them.
        stored: the counts that MODELS has.
        suspended: whether the candidate answers nothing here, because MODELS cannot be told that it disagrees.
    """

    canary: Canary
    counts: Counts = field(default_factory=Counts)
    seen: set[bytes] = field(default_factory=set)
    stored: Counts = field(default_factory=Counts)
    suspended: bool = False


class CanaryRouter:
    """Decides which version answers about an image, and compares the two.

    Args:
        models: folder or URI of the registry.
        client: asks the candidate; raises NotLoaded where it is not loaded.
        on_comparison: called with each comparison that counts.
        on_status: called with the status after each look at the registry; None without a canary.

    Attributes:
        status: the status of the latest canary at the last look, None without any.
    """

    def __init__(
        self,
        models: str,
        client: ModelClient,
        on_comparison: Callable[[Comparison], None] = lambda _: None,
        on_status: Callable[[Status | None], None] = lambda _: None,
    ) -> None:
        self._models, self._client = models, client
        self._on_comparison, self._on_status = on_comparison, on_status
        self._replica = uuid.uuid4().hex
        self._run: _Run | None = None
        self.status: Status | None = None

    @property
    def is_running(self) -> bool:
        """Whether a candidate answers about some of the images."""
        return self._run is not None and not self._run.suspended

    async def predict(
        self,
        data: bytes,
        live_client: ModelClient,
        image: DecodedImage,
        model: ModelInfo,
        *,
        left_s: float,
        explain: bool = False,
    ) -> ImagePrediction:
        """Predicts an image with the version that its file ``data`` belongs to, see :func:`predict_image`.

        Args:
            left_s: seconds until the request must be answered.
        """
        run, until = self._run, time.monotonic() + left_s
        digest = await asyncio.to_thread(run.canary.digest, data) if run and image.crops else b""
        if not run or not digest or not run.canary.takes(digest):
            return await predict_image(live_client, image, model, explain=explain)
        asked = asyncio.create_task(predict_image(self._client, image, model))
        asked.add_done_callback(_retrieve)
        try:
            live = await predict_image(live_client, image, model)
            late_s = min(LATE_S, LATE_PART * (until - time.monotonic()))
            chosen = await self._compare(run, digest, live, asked, late_s)
        finally:
            asked.cancel()
        if explain and chosen is not live:
            try:
                return await add_heatmap(self._client, chosen)
            except Exception:
                _log.exception("the candidate %s cannot explain its answer", run.canary.candidate)
        return await add_heatmap(live_client, live) if explain else chosen

    async def _compare(
        self, run: _Run, digest: bytes, live: ImagePrediction, asked: "asyncio.Task[ImagePrediction]", late_s: float
    ) -> ImagePrediction:
        """The answer of the candidate, or that of the live version where the candidate has none; counts the pair."""
        canary, candidate, grace = run.canary, None, asyncio.timeout(late_s)
        try:
            async with grace:
                candidate = await asked
        except Unavailable:  # not loaded, or too many images are waiting: this says nothing about the candidate
            return live
        except Exception:  # whatever its engine raises
            if grace.expired() and late_s < LATE_S:
                return live
            _log.exception("the candidate %s failed", canary.candidate)
        if live.model.version != canary.live or (candidate and candidate.model.version != canary.candidate):
            return live  # another version has just become live, or another canary has begun
        if digest not in run.seen:
            if len(run.seen) >= REMEMBERED:
                run.seen.clear()
            run.seen.add(digest)
            answer = _answer(candidate) if candidate else None
            comparison = Comparison(canary=canary, live=_answer(live), candidate=answer)
            run.counts += comparison.counts()
            self._on_comparison(comparison)
        return candidate or live

    def update(self) -> None:
        """Stores what was counted here, and follows the registry: starts, goes on with or ends a canary."""
        run = self._run
        try:
            if run and run.counts != run.stored:
                counts = run.counts
                canaries.record(self._models, run.canary, self._replica, counts)
                run.stored = counts
            status = canaries.settle(self._models)
        except (OSError, StorageUnavailable) as error:
            _log.warning("the canary in %s cannot be followed at the moment: %s", self._models, error)
            if run:
                run.suspended = Status.of(run.canary, run.counts).state == "disagrees"
            return
        except DetectorError as error:
            _log.error("there is no canary in %s: %s", self._models, error)
            status = None
        running = status.canary if status and not status.canary.outcome else None
        if running is None or run is None or running.id != run.canary.id:
            self._run = _Run(running) if running else None
        else:
            run.suspended = False
        self._log_change(status)
        self.status = status
        self._on_status(status)

    def _log_change(self, status: Status | None) -> None:
        before, after = (_named(status) for status in (self.status, status))
        if status and after != before:
            level = logging.ERROR if status.state in FAILURES else logging.INFO
            reason = f": {status.canary.reason}" if status.canary.reason else f": {status}"
            _log.log(level, "canary of %s: %s%s", status.canary.candidate, status.state, reason)


def _answer(prediction: ImagePrediction) -> Answer:
    return Answer(verdict=prediction.verdict, p_fake=prediction.p_fake or 0.0, seconds=prediction.detect_s)


def _named(status: Status | None) -> tuple[str, str] | None:
    return (status.canary.id, status.state) if status else None


def _retrieve(task: "asyncio.Task[ImagePrediction]") -> None:
    if not task.cancelled():
        task.exception()  # the request may have ended without asking for it
