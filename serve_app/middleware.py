"""What surrounds every request: its id, security headers, a last catch for errors, one event for whoever measures."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import LEFT, internal, request_id

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
UNKNOWN = "unknown"
_log = logging.getLogger("serve_app")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answered request, for metrics and the log: never an image's bytes, a file name or an address.

    Attributes:
        route: its template, such as ``/v1/detect``; ``unknown`` where none matched.
        seconds: by stage, of all images: ``read``, ``decode``, ``faces``, ``detect``, ``explain``; and ``total``.
        images: judged images, or frames.
        verdicts, p_fakes: of the judged images or frames; p_fake only where there is one.
    """

    route: str
    method: str
    status: int
    request_id: str
    seconds: dict[str, float]
    images: int = 0
    verdicts: tuple[str, ...] = ()
    p_fakes: tuple[float, ...] = ()


@dataclass(kw_only=True)
class Notes:
    """What a request gathers on its way for its answer's timing and for :class:`Answered`."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)
    p_fakes: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Adds the time of a ``with`` block to a stage."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - before)

    def add(self, stage: str, seconds: float) -> None:
        """Adds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def judged(self, verdict: str, p_fake: float | None) -> None:
        """Counts one image or frame."""
        self.verdicts.append(verdict)
        if p_fake is not None:
            self.p_fakes.append(p_fake)

    @property
    def total(self) -> float:
        """Seconds since the request began."""
        return time.perf_counter() - self.started


def notes(request: HTTPConnection) -> Notes:
    """The notes of a request."""
    if not hasattr(request.state, "notes"):
        request.state.notes = Notes()
    found: Notes = request.state.notes
    return found


class Outer:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, observe: Callable[[Answered], None]) -> None:
        self._app, self._observe = app, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        request = HTTPConnection(scope)
        status = 0
        taken = notes(request)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["X-Request-ID"] = request_id(request)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            status = status or LEFT
            raise
        except Exception:
            _log.exception("request %s failed", request_id(request))
            if status:
                raise
            await internal(request)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN)
            event = Answered(
                route=route,
                method=scope["method"],
                status=status,
                request_id=request_id(request),
                seconds={**taken.seconds, "total": taken.total},
                images=len(taken.verdicts),
                verdicts=tuple(taken.verdicts),
                p_fakes=tuple(taken.p_fakes),
            )
            self._observe(event)
