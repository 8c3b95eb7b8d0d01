"""The HTTP API as a FastAPI application: each route parses a request, calls the service once and forms an answer.

Uploads stay in memory. Neither images nor file names are stored or logged, except an image that a user sends as
feedback or tags. Not in this module: what the service does (:mod:`serve_app.service`) and Ray
(:mod:`serve_app.deployments`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.staticfiles import StaticFiles

from detector_core.registry.predictor import ModelInfo
from serve_app import answers, batch_routes, openapi, review_routes, uploads, url_fetch
from serve_app.access import AccessControl, ApiKeys
from serve_app.batch_store import BatchStore
from serve_app.batches import BatchRunner
from serve_app.canary import CanaryRouter
from serve_app.capacity import Capacity
from serve_app.deadlines import compute_within, read_within
from serve_app.errors import error_responses, handle_errors, request_id
from serve_app.middleware import RequestEvent, RequestMiddleware, timings_of
from serve_app.model_schemas import ModelAnswer
from serve_app.pipeline import ModelClient
from serve_app.schemas import DetectAnswer, FeedbackAnswer, Health, Label, TagAnswer, VideoAnswer
from serve_app.service import DetectionService
from serve_app.settings import Faces, HttpSettings

STATIC = Path(__file__).parent / "static"
_HEADERS = ["Authorization", "X-API-Key", "Content-Type", "X-Request-ID"]


def create_app(
    client: ModelClient,
    model: Callable[[], ModelInfo],
    settings: HttpSettings | None = None,
    observe: Callable[[RequestEvent], None] = lambda _: None,
    canary: CanaryRouter | None = None,
) -> FastAPI:
    """Builds the application.

    Args:
        client, model, canary: see :class:`serve_app.service.DetectionService`.
        settings: the operator's settings; None for the defaults.
        observe: called with each answered request.

    Raises:
        BadConfig: a setting does not work, such as a key file that does not exist.
    """
    settings = settings or HttpSettings()
    app = FastAPI(
        title="Deepfake face detector",
        description="Tells photographs of faces from generated images. Uploads are processed in memory and not stored.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=attrgetter("name"),  # generated clients call their functions so
    )
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    app.state.service = DetectionService(client, model, settings, canary)
    if settings.batches_folder:
        store = BatchStore(settings.batches_folder, settings.batch_files_per_client, settings.batch_keep_s)
        app.state.batches = BatchRunner(app.state.service, store)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=_HEADERS,
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.add_middleware(RequestMiddleware, observe=observe)
    handle_errors(app)
    keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
    app.state.access = AccessControl(keys, settings.requests_per_minute, settings.trusted_proxies)
    app.include_router(_upload_routes(settings, app.state.access, requires_key=keys is not None))
    if settings.batches_folder:
        app.include_router(batch_routes.router(settings, app.state.access, requires_key=keys is not None))
    app.include_router(_other_routes())
    if settings.operator_keys_file:
        app.include_router(review_routes.router(settings))
        app.get("/review", include_in_schema=False)(partial(_page, "review.html"))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Works on batches as long as the application runs."""
    runner: BatchRunner | None = getattr(app.state, "batches", None)
    task = asyncio.create_task(runner.run()) if runner else None
    yield
    if task:
        task.cancel()
        await asyncio.wait([task])


async def service_of(request: Request) -> DetectionService:
    """The service of the application that handles a request. Async, or else FastAPI would call it in a thread."""
    service: DetectionService = request.app.state.service
    return service


Service = Annotated[DetectionService, Depends(service_of)]
_FACES = Query(description="on: find and score each face; off: score the center square; auto: the operator's setting")


def _upload_routes(settings: HttpSettings, access: AccessControl, *, requires_key: bool) -> APIRouter:
    """The routes that read a body. Access and capacity are checked before it is read."""
    schemes = (HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)) if requires_key else ()
    dependencies = [
        Depends(access),
        Depends(Capacity(settings.max_open, settings.capacity_bytes)),
        *(Security(scheme) for scheme in schemes),
    ]
    refusals = [401] * requires_key + [429] * bool(settings.requests_per_minute)
    statuses = (400, 408, 413, 415, 422, 503, *refusals)

    def body(schema: dict[str, Any]) -> dict[str, Any]:
        return {"openapi_extra": {"requestBody": schema}, "dependencies": dependencies}

    router = APIRouter()
    router.post(
        "/v1/detect",
        summary="Detect generated faces in images",
        responses=error_responses(*statuses),
        **body(openapi.image_body(settings)),
    )(detect)
    if settings.limits.frames:
        router.post(
            "/v1/detect/video",
            summary="Detect generated faces in a short clip",
            responses=error_responses(*statuses),
            **body(openapi.clip_body()),
        )(detect_video)
    router.post(
        "/v1/feedback",
        status_code=201,
        summary="Report a wrong verdict",
        responses={200: {"model": FeedbackAnswer, "description": "given before"}, **error_responses(*statuses, 404)},
        **body(openapi.feedback_body()),
    )(give_feedback)
    return router


async def detect(
    request: Request,
    service: Service,
    explain: Annotated[
        bool, Query(description="add a heat map of the evidence for the verdict to each result")
    ] = False,
    faces: Annotated[Faces, _FACES] = "auto",
    tag: Annotated[
        Label | None, Query(description="what the images show, as far as you know; stores them for a review")
    ] = None,
    consent: Annotated[bool, Query(description="with tag: agrees that the images are stored and learnt from")] = False,
) -> DetectAnswer:
    """Returns one result per image, in the order of the request.

    Send images in form fields named "file", or a single image as the body with its content type, such as image/jpeg.
    Supported formats: JPEG, PNG, WebP, AVIF and GIF, and others that the operator accepts. Only the first frame of an
    animation is used.
    """
    service.check_tag(tag, consent)
    deadline, timings = service.deadline(), timings_of(request)
    limits = service.settings.limits
    fetch = partial(_fetch, max_bytes=limits.max_bytes) if service.settings.allow_url else None
    with timings.measure("read"):
        reading = uploads.read_images(request, max_bytes=limits.max_bytes, max_files=limits.max_files, fetch=fetch)
        files = await read_within(deadline, reading)
    images = await compute_within(request, deadline, service.detect(files, faces, explain, timings))
    identifier = request_id(request)
    predictions = [prediction for _, prediction in images]
    receipts = await service.sign(files, predictions, identifier)
    results = [
        answers.image_result(index, image, prediction, identifier, receipt)
        for index, ((image, prediction), receipt) in enumerate(zip(images, receipts, strict=True))
    ]
    if tag:
        storing = service.store_tagged(files, predictions, identifier, tag, _giver(request), timings)
        for result, donation in zip(results, await compute_within(request, deadline, storing), strict=True):
            result.retained, result.tag = True, TagAnswer.of(donation, tag, result.verdict)
    return DetectAnswer(results=results, request_id=identifier, timing_ms=answers.timing(timings))


async def detect_video(
    request: Request,
    service: Service,
    frames: Annotated[int | None, Query(ge=1, description="number of moments to score; default: the limit")] = None,
    faces: Annotated[Faces, _FACES] = "auto",
) -> VideoAnswer:
    """Scores evenly spaced moments like images; p_fake of the clip is the median over the moments with a face.

    Send the clip in the form field "file", or as the body with its content type, such as video/mp4. Supported formats:
    MP4, MOV, WebM, Matroska and AVI.
    """
    deadline, timings = service.deadline(), timings_of(request)
    limits = service.settings.limits
    if frames is not None and frames > limits.frames:
        raise uploads.too_many_frames(limits.frames)
    with timings.measure("read"):
        data = await read_within(deadline, uploads.read_clip(request, max_bytes=limits.max_video_bytes))
    work = service.detect_clip(data, frames or limits.frames, faces, timings)
    clip, prediction = await compute_within(request, deadline, work)
    return answers.clip_answer(clip, prediction, request_id(request), timings)


async def give_feedback(request: Request, service: Service, response: Response) -> FeedbackAnswer:
    """Stores one image with its true label, with the sender's consent, so that a later model can be trained on it.

    Date, location and other metadata are removed before the file is stored; its name is never stored. The same image
    given again with the same label counts once.
    """
    service.check_feedback()
    deadline, timings = service.deadline(), timings_of(request)
    with timings.measure("read"):
        reading = uploads.read_form(request, max_bytes=service.settings.limits.max_bytes, max_files=1)
        form = await read_within(deadline, reading)
    donation = await compute_within(request, deadline, service.store_feedback(form, _giver(request), timings))
    if not donation.is_new:
        response.status_code = 200
    return FeedbackAnswer(id=donation.id, new=donation.is_new, request_id=request_id(request))


def _other_routes() -> APIRouter:
    router = APIRouter()
    router.get(
        "/v1/model",
        summary="Describe the model and the service",
        responses=error_responses(503),
    )(show_model)
    router.get("/healthz", summary="Liveness probe")(alive)
    router.get("/readyz", summary="Readiness probe", responses=error_responses(503))(ready)
    router.get("/", include_in_schema=False)(partial(_page, "index.html"))
    router.get("/docs", include_in_schema=False)(partial(_page, "docs.html"))
    return router


async def show_model(service: Service) -> ModelAnswer:
    """Returns the model that answers, its test metrics, and the features and limits of this service."""
    return await service.describe_model()


async def alive() -> Health:
    """Answers 200 as long as the process is alive."""
    return Health()


async def ready(service: Service) -> Health:
    """Answers 200 if the model answers (a result of the last seconds counts, and a busy model is ready), else 503."""
    await service.check_ready()
    return Health()


def _giver(request: Request) -> str:
    access: AccessControl = request.app.state.access
    return access.giver(request)


async def _page(name: str) -> FileResponse:
    return FileResponse(STATIC / name)


async def _fetch(url: str, hold: Callable[[int], None], *, max_bytes: int) -> bytes:
    return await url_fetch.fetch(url, max_bytes, hold)
