"""Wraps every request: Host, HEAD, request id, security headers, a last exception handler, and one event for metrics
and log.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import request_ids
from serve_app.errors import CLIENT_CLOSED, error_response, internal_error, request_id

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
UNKNOWN_ROUTE = "unknown"
NO_HOST = "the request must have one Host header"
_log = logging.getLogger("ray.serve")


@dataclass(frozen=True, kw_only=True)
class RequestEvent:
    """One answered request, for metrics and log. It never holds image bytes, a file name or an address.

    Attributes:
        route: its template, such as ``/v1/detect``; ``unknown`` if none matched.
        seconds: by stage, over all images: ``read``, ``decode``, ``faces``, ``detect``, ``explain``; and ``total``.
        images: number of images or frames predicted.
        bytes: of the body that were read.
        cpu_s: CPU time spent on decoding and searching faces; not that of the model, which predicts in batches.
        over_budget: the budget that ended the request: ``bytes``, ``cpu`` or ``time``; empty if none did.
        verdicts, p_fakes: of these; an image without a face has no p_fake.
    """

    route: str
    method: str
    status: int
    request_id: str
    seconds: dict[str, float]
    images: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    over_budget: str = ""
    verdicts: tuple[str, ...] = ()
    p_fakes: tuple[float, ...] = ()


@dataclass(kw_only=True)
class RequestTimings:
    """Collects the timings and verdicts of a request, for its answer and for :class:`RequestEvent`."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    cpu_s: float = 0.0
    verdicts: list[str] = field(default_factory=list)
    p_fakes: list[float] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the duration of a ``with`` block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Adds to the duration of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def count(self, verdict: str, p_fake: float | None) -> None:
        """Counts one predicted image or frame."""
        self.verdicts.append(verdict)
        if p_fake is not None:
            self.p_fakes.append(p_fake)

    @property
    def total(self) -> float:
        """Seconds since the request started."""
        return time.perf_counter() - self.started


def timings_of(request: HTTPConnection) -> RequestTimings:
    """The timings of a request; the same object on every call."""
    if not hasattr(request.state, "timings"):
        request.state.timings = RequestTimings()
    timings: RequestTimings = request.state.timings
    return timings


class RequestMiddleware:
    """The outermost ASGI layer. It answers HEAD like GET without the body, and a request without one Host with 400.

    Args:
        observe: called with each request after its answer.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[RequestEvent], None]) -> None:
        self._app, self._observe = app, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        method, status = scope["method"], 0
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        request = HTTPConnection(scope)
        timings = timings_of(request)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers[request_ids.HEADER] = request_id(request)
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            app = self._app if _has_host(request) else error_response(request, 400, NO_HOST, "bad_request")
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            status = status or CLIENT_CLOSED
            raise
        except Exception:
            _log.exception("request %s failed", request_id(request))
            if status:
                raise
            await internal_error(request)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            event = RequestEvent(
                route=route,
                method=method,
                status=status,
                request_id=request_id(request),
                seconds={**timings.seconds, "total": timings.total},
                images=len(timings.verdicts),
                bytes=timings.bytes,
                cpu_s=timings.cpu_s,
                over_budget=getattr(request.state, "over_budget", ""),
                verdicts=tuple(timings.verdicts),
                p_fakes=tuple(timings.p_fakes),
            )
            self._observe(event)


def _has_host(request: HTTPConnection) -> bool:
    """Whether a request names its host exactly once, as HTTP/1.1 demands. HTTP/1.0 has no such header."""
    hosts = request.headers.getlist("host")
    return (len(hosts) == 1 and bool(hosts[0])) or (not hosts and request.scope["http_version"] == "1.0")
