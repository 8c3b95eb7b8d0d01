"""How many requests, and how many bytes of their bodies, one process holds at a time."""

from collections.abc import AsyncIterator

from fastapi import Request

from serve_app.errors import Busy


class Capacity:
    """A dependency of the routes that read a body.

    Bytes are counted as they arrive, so a client that announces a large body and sends nothing takes no capacity; the
    announced length is only compared with what is left. Everything is released when the request ends, however it ends.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = self._bytes = 0

    @property
    def in_use(self) -> tuple[int, int]:
        """Requests and bytes."""
        return self._requests, self._bytes

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Raises Busy."""
        left, length = self._max_bytes - self._bytes, content_length(request)
        # A body above max_bytes is too large, not too much at a time: whoever reads it says so.
        if self._requests >= self._max_requests or left < length <= self._max_bytes:
            raise Busy
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self._bytes + count > self._max_bytes:
                raise Busy
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
    """The length of the body as the request announces it; 0 if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0
