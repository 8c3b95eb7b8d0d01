"""Whether the model answers: for /readyz, and for Ray Serve, which replaces a replica that is broken. No Ray here."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.errors import Busy, Unavailable
from serve_app.pipeline import ModelClient

ANSWER_S = 5.0
"""A model that needs longer for one image is not ready."""
FRESH_S = 5.0
"""For this long an answer to any request shows that the model is ready."""
STUCK_S = 120.0
"""A forward pass that takes longer is considered stuck."""


class HealthTracked:
    """A model client that remembers when the model last answered."""

    def __init__(self, client: ModelClient) -> None:
        self._client, self.answered_at = client, -math.inf

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """As the client, see :class:`serve_app.pipeline.ModelClient`."""
        prediction = await self._client.predict(image_SSC)
        self.answered_at = time.monotonic()
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """As the client."""
        return await self._client.explain(image_SSC, toward)

    async def model_info(self) -> ModelInfo:
        """As the client."""
        return await self._client.model_info()


class Readiness:
    """Probes the model if it has not answered for FRESH_S: once, however many callers wait for it.

    Args:
        probe: asks for one prediction through ``client`` and warms up whatever else a request needs.
    """

    def __init__(self, client: HealthTracked, probe: Callable[[], Awaitable[object]]) -> None:
        self._client, self._probe = client, probe
        self._ready_once = False
        self._probing: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raises Unavailable."""
        if self._ready_once and time.monotonic() - self._client.answered_at < FRESH_S:
            return
        if self._probing is None:
            self._probing = asyncio.create_task(self._run_probe())
            self._probing.add_done_callback(self._finish)
        await asyncio.shield(self._probing)

    async def _run_probe(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._probe()
        except Busy:  # a busy model is ready, but only once it has answered at all
            if not self._ready_once:
                raise
        except TimeoutError:
            raise Unavailable(f"the model did not answer within {ANSWER_S:g} s") from None
        self._ready_once = True

    def _finish(self, task: "asyncio.Task[None]") -> None:
        self._probing = None
        if not task.cancelled():
            task.exception()  # marks it as seen: the callers raise it, but they may all have left


class ForwardPassMonitor:
    """Watches the forward passes of a replica, to tell whether its engine works. Passes do not overlap."""

    def __init__(self) -> None:
        self._started_at: float | None = None
        self._failed = False

    @contextmanager
    def track(self) -> Iterator[None]:
        """Wraps one pass."""
        self._started_at = time.monotonic()
        try:
            yield
            self._failed = False
        except Exception:
            self._failed = True
            raise
        finally:
            self._started_at = None

    def check(self, retry: Callable[[], object]) -> None:
        """Returns at once if the last pass succeeded; if it failed, runs ``retry``, whose error it raises.

        Raises:
            TimeoutError: the current pass has been running for more than STUCK_S.
        """
        if self._started_at is not None and time.monotonic() - self._started_at > STUCK_S:
            raise TimeoutError(f"a forward pass has not finished within {STUCK_S:g} s")
        if self._failed:
            retry()
            self._failed = False
