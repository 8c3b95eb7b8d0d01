"""Limits how many requests, and how many bytes of their bodies, one process holds at a time."""

from collections.abc import AsyncIterator

from fastapi import Request

from serve_app.errors import SERVICE_BUSY, Busy


class Capacity:
    """A FastAPI dependency of the routes that read a body: refuses requests that exceed the capacity with 503.

    Bytes are counted as they arrive, so a client that announces a large body and sends nothing takes no capacity; the
    announced length is only compared with what is left. Everything is released when the request ends, however it ends.

    Args:
        max_requests: most requests at a time.
        max_bytes: most bytes of their bodies at a time.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = self._bytes = 0

    @property
    def in_use(self) -> tuple[int, int]:
        """The requests and bytes that are held now."""
        return self._requests, self._bytes

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Holds one request until it ends. Raises Busy."""
        left, length = self._max_bytes - self._bytes, content_length(request)
        # A body above max_bytes can never fit: it is left to the reader of the body, which answers 413 instead of 503.
        if self._requests >= self._max_requests or left < length <= self._max_bytes:
            raise Busy(SERVICE_BUSY)
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self._bytes + count > self._max_bytes:
                raise Busy(SERVICE_BUSY)
            held += count
            self._bytes += count

        request.state.hold = hold
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= held


def hold_bytes(request: Request, count: int) -> None:
    """Counts bytes that a request holds until it ends, if its route has a Capacity. Raises Busy."""
    hold = getattr(request.state, "hold", None)
    if hold:
        hold(count)


def content_length(request: Request) -> int:
    """The length of the body in bytes as the request announces it; 0 if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0
