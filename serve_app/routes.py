"""The service as plain FastAPI: bytes -> images -> ``judge`` -> JSON. No Ray; tested with a TestClient.

Uploads stay in memory; nothing of them is kept or logged, a file's name least of all, unless a user gives an image as
feedback. What reads a body is in ``intake``, what becomes of an image in ``judging``, who may ask in ``guards``. Left
out: how ``judge`` batches and where it runs (``app``).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.staticfiles import StaticFiles

from detector_core.data import feedback
from detector_core.errors import BadImage, NoRoom, TooManyPixels, UnreadFormat
from detector_core.images import faces as face_search
from detector_core.registry.predictor import ModelInfo, blank
from serve_app import clips, middleware, openapi, uploads, url_fetch
from serve_app.access import Guard, Keys, Room
from serve_app.errors import Refusal, Unavailable, answer_errors, documented, request_id
from serve_app.health import Readiness, Watched
from serve_app.middleware import Answered, Notes, Outer
from serve_app.pipeline import Judge, Judged, Seen, Workers, ask, look, together
from serve_app.schemas import (
    DetectAnswer,
    FeedbackAnswer,
    Health,
    ImageTiming,
    ModelAnswer,
    ModelRef,
    Result,
    Size,
    Thresholds,
    Timing,
    VideoAnswer,
    looks_for_faces,
)
from serve_app.settings import Faces, HttpSettings

__all__ = ["Answered", "Judge", "Unavailable", "create_app"]

STATIC = Path(__file__).parent / "static"
FULL_RETRY_S = 3600
_HEADERS = ["Authorization", "X-API-Key", "Content-Type", "X-Request-ID"]


def create_app(
    judge: Judge,
    model: Callable[[], ModelInfo],
    settings: HttpSettings | None = None,
    observe: Callable[[Answered], None] = lambda _: None,
) -> FastAPI:
    """The service.

    Args:
        judge: asks the model about one image.
        model: what it is now; its preprocessing is applied here, so that only small squares travel to ``judge``.
        settings: how the operator runs it.
        observe: is given each answered request.

    Raises:
        BadConfig: a setting that cannot work, such as a key file that is not there.
    """
    settings = settings or HttpSettings()
    limits = settings.limits
    workers = Workers()
    watched = Watched(judge)
    store = feedback.Store(settings.feedback_folder, settings.feedback_bytes) if settings.feedback_folder else None
    if store:
        store.probe()
    app = FastAPI(
        title="Deepfake face detector",
        description="Tells photographs of faces from generated ones. Images are judged in memory and never kept.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=_HEADERS,
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.add_middleware(Outer, observe=observe)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    answer_errors(app)
    guarded, refusals = _guard(settings)

    def search(asked: Faces, info: ModelInfo) -> bool:
        return looks_for_faces(settings.faces if asked == "auto" else asked, info)

    async def ask_once() -> None:
        info = model()
        if search("auto", info):
            await workers.run(face_search.warm_up)
        await watched.predict(blank(info))

    readiness = Readiness(watched, ask_once)

    def deadline() -> float:
        return asyncio.get_running_loop().time() + settings.timeout_s

    async def fetch_image(url: str, take: Callable[[int], None]) -> bytes:
        return await url_fetch.fetch(url, limits.max_bytes, take)

    @app.post(
        "/v1/detect",
        summary="Real or fake?",
        dependencies=guarded,
        responses=documented(400, 408, 413, 415, 422, 503, *refusals),
        openapi_extra={"requestBody": openapi.images(settings)},
    )
    async def detect_images(
        request: Request,
        explain: Annotated[bool, Query(description="add a heat map of what speaks for the verdict")] = False,
        faces: Annotated[Faces, Query(description="on: judge each face; off: the whole image")] = "auto",
    ) -> DetectAnswer:
        """One result for each image, in their order.

        Send images as fields named "file" of a multipart form, or one image as the body with its own content
        type, such as image/jpeg. JPEG, PNG, WebP, AVIF, BMP, TIFF and GIF are read; of an animation the first frame.
        """
        until, taken = deadline(), middleware.notes(request)
        with taken.on("read"):
            files = await uploads.within(
                until,
                uploads.read_images(
                    request,
                    max_bytes=limits.max_bytes,
                    max_files=limits.max_files,
                    fetch=fetch_image if settings.allow_url else None,
                ),
            )
        info = model()
        seen_and_judged = await uploads.unless_gone(
            request, until, _judge_all(files, info, search(faces, info), explain)
        )
        results = [
            _result(index, seen, judged, request_id(request), taken)
            for index, (seen, judged) in enumerate(seen_and_judged)
        ]
        return DetectAnswer(results=results, request_id=request_id(request), timing_ms=_timing(taken))

    async def _judge_all(files: list[bytes], info: ModelInfo, on: bool, explain: bool) -> list[tuple[Seen, Judged]]:
        async def look_at(data: bytes, index: int) -> Seen:
            try:
                return await workers.run(look, data, info, limits, on, workers)
            except BadImage as error:
                raise _refusal(error, f"image {index + 1} of {len(files)}: " if len(files) > 1 else "") from None

        seen = await together(look_at(data, index) for index, data in enumerate(files))
        judged = await together(ask(watched, one.squares, info, explain) for one in seen)
        return list(zip(seen, judged, strict=True))

    if limits.frames:

        @app.post(
            "/v1/detect/video",
            summary="Frames of a short clip",
            dependencies=guarded,
            responses=documented(400, 408, 413, 415, 422, 503, *refusals),
            openapi_extra={"requestBody": openapi.clip()},
        )
        async def detect_video(
            request: Request,
            frames: Annotated[int, Query(ge=1, le=limits.frames, description="evenly spaced")] = limits.frames,
            faces: Annotated[Faces, Query(description="on: judge each face; off: the whole frame")] = "auto",
        ) -> VideoAnswer:
            """Evenly spaced frames are judged like images; the clip's p_fake is the median of those with a face.

            Send the clip as the field "file" of a multipart form, or as the body with its own content type, such as
            video/mp4. MP4, MOV, WebM, Matroska and AVI are read.
            """
            until, taken = deadline(), middleware.notes(request)
            with taken.on("read"):
                data = await uploads.within(until, uploads.read_clip(request, max_bytes=limits.max_video_bytes))
            info = model()
            judging = clips.judge_clip(
                data, watched, info, limits, frames, search(faces, info), workers, taken, settings.timeout_s
            )
            found = await uploads.unless_gone(request, until, judging)
            return VideoAnswer(**found, request_id=request_id(request), timing_ms=_timing(taken))

    @app.post(
        "/v1/feedback",
        status_code=201,
        summary="Give an image with its label",
        dependencies=guarded,
        responses=documented(400, 404, 408, 413, 415, 422, 503, *refusals),
        openapi_extra={"requestBody": openapi.gift()},
    )
    async def give(request: Request) -> FeedbackAnswer:
        """Keeps one image, with the consent of who gives it, so that a later model learns from it.

        Times, places and other metadata in the file are removed before it is stored; its name is never kept.
        """
        if store is None:
            raise Refusal(404, "this service keeps no feedback")
        until, taken = deadline(), middleware.notes(request)
        with taken.on("read"):
            form = await uploads.within(until, uploads.read_form(request, max_bytes=limits.max_bytes, max_files=1))
        gift = openapi.Gift.read(form)
        reference = ModelRef.to(await judge.model_info()).model_dump()
        keeping = workers.run(gift.keep, store, reference, limits.max_pixels, workers)
        try:
            found = await uploads.unless_gone(request, until, keeping)
        except BadImage as error:
            raise _refusal(error) from None
        except NoRoom as error:
            raise Unavailable(f"no feedback can be kept now: {error}", retry_after_s=FULL_RETRY_S) from None
        return FeedbackAnswer(id=found, request_id=request_id(request))

    @app.get(
        "/v1/model",
        summary="Which model answers, how good it is, and what this service offers",
        responses=documented(503),
    )
    async def show_model() -> ModelAnswer:
        return ModelAnswer.of(await judge.model_info(), settings)

    @app.get("/healthz", summary="Is the process alive?")
    async def alive() -> Health:
        return Health()

    @app.get("/readyz", summary="Does the model answer?", responses=documented(503))
    async def ready() -> Health:
        await readiness.check()
        return Health()

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    return app


def _guard(settings: HttpSettings) -> tuple[list[Any], list[int]]:
    """The dependencies of a guarded route, and the statuses with which they may answer."""
    keys = Keys(settings.api_keys_file) if settings.api_keys_file else None
    guard = Guard(keys, settings.rate_per_minute, settings.trusted_proxies)
    shown = [HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)] if keys else []
    statuses = [401] * bool(keys) + [429] * bool(settings.rate_per_minute)
    return [
        Depends(guard),
        Depends(Room(settings.max_open, settings.room_bytes)),
        *(Security(scheme) for scheme in shown),
    ], statuses


def _refusal(error: BadImage, where: str = "") -> Refusal:
    kinds = ((TooManyPixels, 413), (UnreadFormat, 415))
    return Refusal(next((status for kind, status in kinds if isinstance(error, kind)), 400), f"{where}{error}")


def _result(index: int, seen: Seen, judged: Judged, request: str, taken: Notes) -> Result:
    spent = {
        "decode": seen.decode_s,
        "faces": seen.faces_s,
        "detect": judged.detect_s,
        "explain": judged.explain_s,
    }
    for stage, seconds in spent.items():
        taken.add(stage, seconds)
    taken.judged(judged.verdict, judged.p_fake)
    return Result(
        index=index,
        verdict=judged.verdict,
        p_fake=judged.p_fake,
        confidence=judged.confidence,
        thresholds=Thresholds.of(judged.model),
        faces=judged.faces,
        size=Size(width=seen.width, height=seen.height),
        judged=judged.decided.box if judged.decided else None,
        warnings=list(seen.warnings),
        heatmap=judged.heatmap,
        model=ModelRef.to(judged.model),
        request_id=request,
        timing_ms=ImageTiming(**{stage: round(1000 * seconds, 2) for stage, seconds in spent.items()}),
    )


def _timing(taken: Notes) -> Timing:
    return Timing(read=round(1000 * taken.seconds.get("read", 0), 2), total=round(1000 * taken.total, 2))
