"""Whether the model answers: what /readyz says, and what tells Ray Serve that a detector is broken. No Ray here."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import Prediction
from serve_app.errors import Busy, Unavailable
from serve_app.pipeline import Judge

ANSWER_S = 5.0
"""A model that needs longer for one image is not ready."""
FRESH_S = 5.0
"""So long an answer shows that the model is there, whoever was given it."""
STUCK_S = 120.0
"""A forward pass that lasts longer never ends."""


class Watched:
    """A judge that remembers when it answered last."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self.answered = judge, -math.inf

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """As the judge."""
        prediction = await self._judge.predict(image_SSC)
        self.answered = time.monotonic()
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """As the judge."""
        return await self._judge.explain(image_SSC, toward)


class Readiness:
    """Asks the model when nobody had an answer of it for FRESH_S: once, however many want to know.

    Args:
        ask: asks about one image through ``judge``, and warms up what else a request needs.
    """

    def __init__(self, judge: Watched, ask: Callable[[], Awaitable[object]]) -> None:
        self._judge, self._ask = judge, ask
        self._asked = False
        self._asking: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raises Unavailable."""
        if self._asked and time.monotonic() - self._judge.answered < FRESH_S:
            return
        if self._asking is None:
            self._asking = asyncio.create_task(self._once())
            self._asking.add_done_callback(self._done)
        await asyncio.shield(self._asking)

    async def _once(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._ask()
        except Busy:  # it has work, more than enough; before its first answer that does not count
            if not self._asked:
                raise
        except TimeoutError:
            raise Unavailable(f"the model did not answer within {ANSWER_S:g} s") from None
        self._asked = True

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # those who wait raise it; perhaps nobody does any more


class Passes:
    """The forward passes of a detector: whether its engine works."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._failed = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around each; they do not overlap."""
        self._since = time.monotonic()
        try:
            yield
            self._failed = False
        except Exception:
            self._failed = True
            raise
        finally:
            self._since = None

    def check(self, again: Callable[[], object]) -> None:
        """Costs nothing while passes succeed; after one that failed, ``again`` makes another. Raises what that raises.

        Raises:
            TimeoutError: a pass goes on for longer than STUCK_S.
        """
        if self._since is not None and time.monotonic() - self._since > STUCK_S:
            raise TimeoutError(f"a forward pass has not ended within {STUCK_S:g} s")
        if self._failed:
            again()
            self._failed = False
