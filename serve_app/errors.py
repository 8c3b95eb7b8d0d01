"""The errors of the service, and the JSON form in which all of them are answered."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from serve_app import request_ids

CODES = {
    400: "not_an_image",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    422: "no_image",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
"""The ``code`` of each error status, unless one of :data:`OTHER_CODES` is more precise."""
OTHER_CODES = {
    "bad_request": (400, "the body is not a valid form or JSON, although its content type says so"),
    "not_a_video": (400, "the file is not a clip, or is damaged"),
    "no_video": (422, "the form has no clip"),
    "no_consent": (422, "feedback without consent=true"),
    "bad_parameter": (422, "a parameter has an invalid value"),
    "bad_receipt": (422, "feedback with a receipt of another image or service, or that claims another answer"),
    "bad_url": (422, "the URL is not allowed, or did not return an image"),
}
"""Code -> status and meaning."""
CLIENT_CLOSED = 499
"""Status, in metrics and log, of a request whose client closed the connection before the answer."""
MODEL_BUSY = "too many images are waiting for the model: try again in a moment"
SERVICE_BUSY = "too many requests are open: try again in a moment"


class Error(BaseModel):
    """An error: ``code`` is for programs, ``message`` for people."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: Error


class Unavailable(Exception):
    """The service cannot answer this request now."""

    def __init__(self, message: str, retry_after_s: int = 1, budget: str = "") -> None:
        super().__init__(message)
        self.retry_after_s, self.budget = retry_after_s, budget


class Busy(Unavailable):
    """The service works but is at a limit: of images that wait for the model, or of open requests and their bytes."""

    def __init__(self, message: str = MODEL_BUSY) -> None:
        super().__init__(message)


class Refusal(HTTPException):
    """A request that is answered with an error status.

    Args:
        message: for people.
        code: for programs; needed only where the default code of the status (CODES) is not precise enough.
        budget: which budget of the request was used up, if one was: ``bytes``, ``cpu`` or ``time``.
    """

    def __init__(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None, budget: str = ""
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.budget = code or CODES[status], budget


def request_id(request: HTTPConnection) -> str:
    """The id of a request, see :func:`serve_app.request_ids.choose`; stable across calls."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = request_ids.choose(request.headers.getlist(request_ids.HEADER))
    identifier: str = request.state.request_id
    return identifier


def error_response(
    request: HTTPConnection, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """An answer with the body ``{"error": {"code", "message", "request_id"}}``."""
    body = Error(code=code or CODES.get(status, "error"), message=message, request_id=request_id(request))
    return JSONResponse(ErrorAnswer(error=body).model_dump(), status, headers)


def internal_error(request: HTTPConnection) -> JSONResponse:
    """The answer to an unexpected exception; its details are only logged."""
    return error_response(request, 500, "internal error: the service has logged the details under this request_id")


def handle_errors(app: FastAPI) -> None:
    """Registers handlers that answer every exception in the form of :func:`error_response`."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, refusal: HTTPException) -> JSONResponse:
        code = refusal.code if isinstance(refusal, Refusal) else ""
        request.state.over_budget = getattr(refusal, "budget", "")
        return error_response(request, refusal.status_code, str(refusal.detail), code, dict(refusal.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, refusal: RequestValidationError) -> JSONResponse:
        first = refusal.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_response(request, 422, f"parameter {where}: {first['msg']}", "bad_parameter")

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, busy: Unavailable) -> JSONResponse:
        request.state.over_budget = busy.budget
        return error_response(request, 503, str(busy), headers={"Retry-After": str(busy.retry_after_s)})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        return error_response(request, CLIENT_CLOSED, "the connection was closed before the answer", "bad_request")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route in the OpenAPI document: each status with every code it may have."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        codes = [CODES[status], *(code for code, (of, _) in OTHER_CODES.items() if of == status)]
        entry: dict[str, Any] = {"model": ErrorAnswer, "description": ", ".join(codes)}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
        if status == 401:
            entry["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        responses[status] = entry
    return responses
