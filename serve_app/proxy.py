"""What the HTTP servers of Ray Serve do before the application sees a request.

Ray's proxies, and its replicas where they listen themselves, call :func:`middlewares` when they start, because the
environment variable ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names it: ``jobs.serve`` sets it, and so does
whoever starts Ray on a cluster (docs/operate.md). Without it, Ray copies any X-Request-ID into its answer and tells
everybody its routes. Only light imports: this module is loaded by processes that serve no model.
"""

import json
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import request_ids

RESERVED: Final = "/-/"
"""Paths that Ray answers itself, before any application."""
HEALTH: Final = "/-/healthz"
"""The only one of them that is public: load balancers need it."""


def middlewares() -> list[Middleware]:
    """The middlewares of every HTTP server that Ray Serve starts."""
    return [Middleware(ProxyGuard)]


class ProxyGuard:
    """Gives each request one valid X-Request-ID, which Ray then returns, and answers Ray's own paths with 404."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist(request_ids.HEADER)
        identifier = request_ids.choose(given)
        if given != [identifier]:
            name = request_ids.HEADER.lower().encode()
            others = [pair for pair in scope["headers"] if pair[0].lower() != name]
            scope = {**scope, "headers": [*others, (name, identifier.encode())]}
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(RESERVED) and path != HEALTH:
            await _not_found(send, identifier)
        else:
            await self._app(scope, receive, send)


async def _not_found(send: Send, identifier: str) -> None:
    error = {"code": "not_found", "message": "Not Found", "request_id": identifier}
    body = json.dumps({"error": error}).encode()
    start: Message = {"type": "http.response.start", "status": 404, "headers": []}
    headers = MutableHeaders(scope=start)
    headers.update({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers[request_ids.HEADER] = identifier
    await send(start)
    await send({"type": "http.response.body", "body": body})
