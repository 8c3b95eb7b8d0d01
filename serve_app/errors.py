"""How the service says no: exceptions, and the one form in which every error leaves."""

import re
import uuid

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from serve_app.schemas import CODES, OTHER_CODES, Error, ErrorAnswer

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

LEFT = 499
"""The status, in metrics and log, of a request whose client left before there was an answer."""
BUSY = "too many images are waiting: try again in a moment"


class Unavailable(Exception):
    """The detector cannot take this request now."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    """The detector works, and more is waiting than it may take."""

    def __init__(self) -> None:
        super().__init__(BUSY)


class Refusal(HTTPException):
    """A request that is answered with an error; ``code`` where the status has several, see OTHER_CODES."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.code = code or CODES[status]


def request_id(request: HTTPConnection) -> str:
    """The id that the client, or the proxy before us, gave the request; else a new one, the same on every call."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if _ID.fullmatch(given) else str(uuid.uuid4())
    found: str = request.state.request_id
    return found


def error(
    request: HTTPConnection, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """``{"error": {"code", "message", "request_id"}}``."""
    said = Error(code=code or CODES.get(status, "error"), message=message, request_id=request_id(request))
    return JSONResponse(ErrorAnswer(error=said).model_dump(), status, headers)


def internal(request: HTTPConnection) -> JSONResponse:
    """An error of ours; what it was stays in the log."""
    return error(request, 500, "an error of the service; its log has more under this request_id")


def answer_errors(app: FastAPI) -> None:
    """Every exception leaves in the form of :func:`error`."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, refusal: HTTPException) -> JSONResponse:
        code = refusal.code if isinstance(refusal, Refusal) else ""
        return error(request, refusal.status_code, str(refusal.detail), code, dict(refusal.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, refusal: RequestValidationError) -> JSONResponse:
        first = refusal.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error(request, 422, f"the parameter {where}: {first['msg']}", "bad_parameter")

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, busy: Unavailable) -> JSONResponse:
        return error(request, 503, str(busy), headers={"Retry-After": str(busy.retry_after_s)})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        return error(request, LEFT, "the connection was closed before the answer", "bad_request")  # read by nobody


def documented(*statuses: int) -> dict[int | str, dict[str, object]]:
    """The ``responses`` of a route in the OpenAPI document: each status with every code it may carry."""
    found: dict[int | str, dict[str, object]] = {}
    for status in statuses:
        codes = [CODES[status], *(code for code, (of, _) in OTHER_CODES.items() if of == status)]
        entry: dict[str, object] = {"model": ErrorAnswer, "description": ", ".join(codes)}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
        if status == 401:
            entry["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        found[status] = entry
    return found
