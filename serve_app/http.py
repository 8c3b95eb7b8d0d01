"""The service as plain FastAPI: bytes -> pictures -> ``detect`` -> JSON. No Ray; tested with a TestClient.

Uploads stay in memory and nothing of them is kept or logged, a file's name least of all. Left out: how ``detect``
batches and where it runs (``app``).
"""

import asyncio
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector_core.errors import BadImage, TooManyPixels
from detector_core.explain import Heat
from detector_core.pictures import Pixels, decode
from detector_core.preprocess import square
from detector_core.runtime import ModelInfo, Prediction, blank
from serve_app.schemas import (
    CODES,
    DetectAnswer,
    Error,
    ErrorAnswer,
    Health,
    HttpSettings,
    Limits,
    ModelAnswer,
    ModelRef,
    PictureTiming,
    Result,
    Size,
    Thresholds,
    Warning,
)


class Judge(Protocol):
    """Asks the model; both raise Unavailable."""

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """One picture of the model's size."""
        ...

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """heat_HW from 0 to 1: what speaks for a label."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answered request, for metrics and the log: never a picture's bytes or name.

    Attributes:
        route: its template, such as ``/v1/detect``; ``unknown`` where none matched.
        seconds: by stage: ``read``, ``decode``, ``faces``, ``detect``, ``explain``, ``total``.
        verdicts, p_fakes: one entry a picture, or a judged frame; p_fake only where there is one.
    """

    route: str
    method: str
    status: int
    request_id: str
    seconds: dict[str, float]
    pictures: int = 0
    verdicts: tuple[str, ...] = ()
    p_fakes: tuple[float, ...] = ()


STATIC = Path(__file__).parent / "static"
FIELD = "file"
READY_S = 5.0
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PICTURE = {"type": "string", "format": "binary"}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "minItems": 1, "items": _PICTURE}},
            }
        },
        "image/*": {"schema": _PICTURE},
    },
}


class Unavailable(Exception):
    """The detector cannot take this request now."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def create_app(
    judge: Judge,
    model: Callable[[], ModelInfo],
    settings: HttpSettings | None = None,
    observe: Callable[[Answered], None] = lambda _: None,
) -> FastAPI:
    """The service.

    Args:
        judge: asks the model about one picture.
        model: what it is now; its preprocessing is applied here, so that only small squares travel to ``judge``.
        settings: how the operator runs it.
        observe: is given each answered request.
    """
    settings = settings or HttpSettings()
    limits = settings.limits
    decoders = CapacityLimiter(os.cpu_count() or 1)  # each holds a whole picture in memory
    app = FastAPI(
        title="Deepfake face detector",
        description="Tells photographs of faces from generated ones. Pictures are judged in memory and never kept.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(_SecurityHeaders)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_errors(app)

    @app.post(
        "/v1/detect",
        summary="Real or fake?",
        responses=_errors(400, 413, 415, 422, 503),
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def detect_pictures(request: Request) -> DetectAnswer:
        """One result for each picture, in their order.

        Send pictures as fields named "file" of a multipart form, or one picture as the body with its own content
        type, such as image/jpeg. JPEG, PNG, WebP, AVIF, BMP, TIFF and GIF are read; of an animation the first frame.
        """
        spent = _Stopwatch()
        with spent.on("read"):
            files = await _read(request, limits)
        with spent.on("decode"):
            pictures = [await _decode(data, index, len(files)) for index, data in enumerate(files)]
        with spent.on("detect"):
            predictions = await asyncio.gather(*(judge.predict(pixels_SSC) for pixels_SSC, _ in pictures))
        results = [
            Result(
                index=index,
                verdict=prediction.verdict,
                p_fake=prediction.p_fake,
                confidence=prediction.confidence,
                thresholds=Thresholds.of(prediction.model),
                faces=[],
                size=Size(width=0, height=0),
                judged=(0, 0, 0, 0),
                warnings=warnings,
                model=ModelRef.to(prediction.model),
                request_id=request_id(request),
                timing_ms=PictureTiming(decode=0, faces=0, detect=0, explain=0),
            )
            for index, (prediction, (_, warnings)) in enumerate(zip(predictions, pictures, strict=True))
        ]
        return DetectAnswer(results=results, request_id=request_id(request), timing_ms=spent.timing())

    async def _decode(data: bytes, index: int, count: int) -> tuple[Pixels, list[Warning]]:
        try:
            return await to_thread.run_sync(_to_square, data, model(), limits, limiter=decoders)
        except BadImage as error:
            where = f"picture {index + 1} of {count}: " if count > 1 else ""
            raise HTTPException(413 if isinstance(error, TooManyPixels) else 400, f"{where}{error}") from None

    @app.get("/v1/model", summary="Which model answers, and how good it is")
    async def show_model() -> ModelAnswer:
        return ModelAnswer.of(model(), settings)

    @app.get("/healthz", summary="Is the process alive?")
    async def alive() -> Health:
        return Health()

    @app.get("/readyz", summary="Does the model answer?", responses=_errors(503))
    async def ready() -> Health:
        try:
            await asyncio.wait_for(judge.predict(blank(model())), READY_S)
        except TimeoutError:
            raise Unavailable(f"the model did not answer within {READY_S:g} s") from None
        return Health()

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    return app


def request_id(request: Request) -> str:
    """The id that the client, or the proxy before us, gave the request; else a new one, the same on every call."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if _ID.fullmatch(given) else str(uuid.uuid4())
    found: str = request.state.request_id
    return found


async def _read(request: Request, limits: Limits) -> list[bytes]:
    """The bytes of each picture of a request, without touching the disk."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("image/"):
        return [b"".join([part async for part in _bounded(request, limits.max_bytes)])]
    if content_type != "multipart/form-data":
        raise HTTPException(
            415, f"send a multipart form with a field {FIELD!r}, or one picture as the body with its type: image/jpeg"
        )
    parser = MultiPartParser(
        request.headers,
        _bounded(request, limits.max_bytes),
        max_files=limits.max_files,
        max_fields=limits.max_files,
    )
    parser.spool_max_size = limits.max_bytes + 1  # larger ones would go to a temporary file on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(413, f"at most {limits.max_files} pictures a request") from None
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    try:
        files = [await item.read() for item in form.getlist(FIELD) if isinstance(item, UploadFile)]
    finally:
        await form.close()
    if not files:
        raise HTTPException(422, f"the form has no picture in a field named {FIELD!r}")
    return files


async def _bounded(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it arrives; stops reading at the limit."""
    too_large = HTTPException(413, f"the request is larger than {max_bytes / 2**20:g} MiB")
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise too_large
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > max_bytes:
            raise too_large
        yield part


def _to_square(data: bytes, model: ModelInfo, limits: Limits) -> tuple[Pixels, list[Warning]]:
    """Bytes -> image_SSC, and what a reader of the verdict should know about the picture. Raises BadImage."""
    image_HWC = decode(data, max_pixels=limits.max_pixels)
    height, width = image_HWC.shape[:2]
    warnings: list[Warning] = []
    if min(height, width) < model.preprocess.image_size:
        warnings.append("upscaled")
    if height != width:
        warnings.append("cropped")
    return square(image_HWC, model.preprocess), warnings


def _answer_errors(app: FastAPI) -> None:
    """Every error leaves as ``{"error": {"code", "message", "request_id"}}``."""

    def answer(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        error = Error(code=CODES.get(status, "error"), message=message, request_id=request_id(request))
        return JSONResponse(ErrorAnswer(error=error).model_dump(), status, headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> JSONResponse:
        return answer(request, 503, str(error), {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        return answer(request, 400, "the connection was closed before the whole request had arrived")

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> JSONResponse:
        return answer(request, 500, "an error of the service; its log has more under this request_id")


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": ErrorAnswer, "description": CODES[status]} for status in statuses}


class _SecurityHeaders:
    """Adds :data:`HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Stopwatch:
    """Milliseconds spent on each stage and in all."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._spent[stage] = _milliseconds_since(before)

    def timing(self) -> dict[str, float]:
        return {**self._spent, "total": _milliseconds_since(self._started)}


def _milliseconds_since(moment: float) -> float:
    return round(1000 * (time.perf_counter() - moment), 2)
