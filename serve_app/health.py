"""Health of the model: for /readyz, and for Ray Serve, which replaces broken replicas. Does not import Ray."""

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.decode_pool import DecodePool
from serve_app.errors import Busy, Unavailable
from serve_app.pipeline import ModelClient

ANSWER_S = 5.0
"""A model that needs longer than this for one image is not ready."""
FRESH_S = 5.0
"""An answer to any request shows for this long that the model is ready."""
GRACE_S = 5.0
"""How long decoding may go on after the time of its request is up."""
MOST_UNANSWERED = 4
"""After as many images in a row without an answer, a model is no longer considered merely busy."""
STUCK_S = 120.0
"""A forward pass that takes longer is considered stuck."""


class HealthTracked:
    """A model client that remembers when the model last answered, and how many images it has failed since then."""

    def __init__(self, client: ModelClient) -> None:
        self._client, self.answered_at, self.unanswered = client, -math.inf, 0

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """As :meth:`serve_app.pipeline.ModelClient.predict`; records the answer, or that there was none."""
        started = time.monotonic()
        try:
            prediction = await self._client.predict(image_SSC)
        except Busy:  # the image was not even sent: under a load that the model can barely bear, most are not
            raise
        except asyncio.CancelledError:  # at the time limit of its request, or because the client disconnected early
            self.unanswered += time.monotonic() - started > ANSWER_S
            raise
        except Exception:
            self.unanswered += 1
            raise
        self.answered_at, self.unanswered = time.monotonic(), 0
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """As :meth:`serve_app.pipeline.ModelClient.explain`."""
        return await self._client.explain(image_SSC, toward)

    async def model_info(self) -> ModelInfo:
        """As :meth:`serve_app.pipeline.ModelClient.model_info`."""
        return await self._client.model_info()


class Readiness:
    """Probes the model if it has not answered for FRESH_S, or left MOST_UNANSWERED images in a row without an answer.

    Concurrent callers wait for the same probe.

    Args:
        probe: asks for one prediction through ``client``, and warms up everything else that a request needs.
    """

    def __init__(self, client: HealthTracked, probe: Callable[[], Awaitable[object]]) -> None:
        self._client, self._probe = client, probe
        self._ready_once = False
        self._probing: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raises Unavailable if the model does not answer."""
        if self._is_trusted() and time.monotonic() - self._client.answered_at < FRESH_S:
            return
        if self._probing is None:
            self._probing = asyncio.create_task(self._run_probe())
            self._probing.add_done_callback(self._finish)
        await asyncio.shield(self._probing)

    def _is_trusted(self) -> bool:
        return self._ready_once and self._client.unanswered < MOST_UNANSWERED

    async def _run_probe(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._probe()
        except Busy:  # a busy model is ready, but only while it answers
            if not self._is_trusted():
                raise
        except TimeoutError:
            raise Unavailable(f"the model did not answer within {ANSWER_S:g} s") from None
        self._ready_once = True

    def _finish(self, task: "asyncio.Task[None]") -> None:
        self._probing = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the callers raise it, but they may all have disconnected


def check_not_stuck(pools: Iterable[DecodePool], limit_s: float) -> None:
    """Raises Unavailable if a job of a pool has been in its thread for longer than ``limit_s`` and some seconds more.

    At its limit a request ends its job, so a job that goes on has not noticed, and may keep its thread forever.
    """
    longest_s = max(pool.longest_s for pool in pools)
    if longest_s > limit_s + GRACE_S:
        raise Unavailable(f"decoding has been stuck for {longest_s:.0f} s")


class ForwardPassMonitor:
    """Records how the forward passes of a replica end, to detect a broken engine. Passes may overlap."""

    def __init__(self) -> None:
        self._started: dict[int, float] = {}
        self._numbers = itertools.count()
        self._failed = False

    @contextmanager
    def track(self) -> Iterator[None]:
        """Wraps one pass."""
        number = next(self._numbers)
        self._started[number] = time.monotonic()
        try:
            yield
            self._failed = False
        except Exception:
            self._failed = True
            raise
        finally:
            del self._started[number]

    def check(self, retry: Callable[[], object]) -> None:
        """Returns at once if the last pass to end succeeded. If it failed, runs ``retry`` and lets its error through.

        Raises:
            TimeoutError: a pass has been running for more than STUCK_S.
        """
        oldest = min(list(self._started.values()), default=math.inf)
        if time.monotonic() - oldest > STUCK_S:
            raise TimeoutError(f"a forward pass has not finished within {STUCK_S:g} s")
        if self._failed:
            retry()
            self._failed = False
