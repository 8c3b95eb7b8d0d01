"""Time limits of a request: while its body is read, and while its answer is computed."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from serve_app.errors import Refusal, Unavailable

T = TypeVar("T")


async def read_within(deadline: float, reading: Awaitable[T]) -> T:
    """Waits for a body until ``deadline`` on the event loop's clock. Raises Refusal: 408 if it is not complete then."""
    try:
        async with asyncio.timeout_at(deadline):
            return await reading
    except TimeoutError:
        headers = {"Connection": "close"}
        raise Refusal(408, "the request body did not arrive in time", headers=headers, budget="time") from None


async def compute_within(request: Request, deadline: float, work: Coroutine[None, None, T]) -> T:
    """Computes the answer to a request whose body was read; cancels the work when the client leaves or time runs out.

    Raises:
        Unavailable: the deadline has passed.
        ClientDisconnect: the client has closed the connection.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(request))
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    except TimeoutError:
        if working.done() and not working.cancelled() and working.exception() is not None:
            raise
        raise Unavailable(
            "the answer was not ready in time: try again in a moment", retry_after_s=2, budget="time"
        ) from None
    finally:
        working.cancel()
        watching.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
