"""The routes of batches: many files in one request, scored later.

Those that are no coroutines run in a thread, because they read files.
"""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from serve_app import openapi, uploads
from serve_app.access import AccessControl
from serve_app.batch_schemas import BatchAnswer, BatchResult, BatchResults
from serve_app.batch_store import Batch
from serve_app.batches import BatchRunner
from serve_app.capacity import Capacity
from serve_app.deadlines import read_within
from serve_app.errors import Refusal, error_responses, request_id
from serve_app.middleware import timings_of
from serve_app.settings import HttpSettings

PAGE = 1000
"""Maximum number of results in an answer."""
_LONGEST_KEY = 255


def router(settings: HttpSettings, access: AccessControl, *, requires_key: bool) -> APIRouter:
    """The routes of batches. Access is checked before a body is read."""
    schemes = (HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)) if requires_key else ()
    allowed = [Depends(access), *(Security(scheme) for scheme in schemes)]
    capacity = Depends(Capacity(settings.max_open, settings.capacity_bytes))
    refusals = [401] * requires_key + [429] * bool(settings.requests_per_minute)
    known: dict[str, Any] = {"dependencies": allowed, "responses": error_responses(404, 422, 503, *refusals)}
    routes = APIRouter()
    routes.post(
        "/v1/batches",
        status_code=202,
        summary="Score many files later",
        responses=error_responses(400, 408, 413, 415, 422, 429, 503, *([401] * requires_key)),
        dependencies=[*allowed, capacity],
        openapi_extra={"requestBody": openapi.batch_body(settings)},
    )(create_batch)
    one = "/v1/batches/{id}"
    routes.get(one, summary="Say how far a batch is", **known)(show_batch)
    routes.get(f"{one}/results", summary="Return the results of a batch", **known)(show_results)
    routes.delete(one, summary="Cancel a batch", **known)(cancel_batch)
    return routes


async def runner_of(request: Request) -> BatchRunner:
    """The runner of the application that handles a request."""
    runner: BatchRunner = request.app.state.batches
    return runner


Runner = Annotated[BatchRunner, Depends(runner_of)]


def _owner(request: Request, runner: BatchRunner) -> str:
    access: AccessControl = request.app.state.access
    return runner.store.pseudonym(access.giver(request))


def _answer(runner: BatchRunner, batch: Batch, request: Request, *, with_secret: bool = False) -> BatchAnswer:
    progress = runner.store.progress(batch)
    return BatchAnswer.of(batch, progress, runner.store.keep_s, request_id(request), with_secret=with_secret)


async def create_batch(
    request: Request,
    runner: Runner,
    idempotency_key: Annotated[
        str | None,
        Header(max_length=_LONGEST_KEY, description="a text of yours: the same request with it makes no second batch"),
    ] = None,
) -> BatchAnswer:
    """Takes images and clips to be scored later, and answers with the id of the batch.

    Send them in form fields named "file"; or, where the operator allows URLs, as {"urls": [...]}. A form field
    "webhook" (or a key of the JSON) names an address that is called when the batch has ended, also only where URLs are
    allowed.
    """
    settings: HttpSettings = request.app.state.service.settings
    with timings_of(request).measure("read"):
        contents, webhook = await read_within(request.app.state.service.deadline(), _read(request, settings))
    if not contents:
        raise Refusal(422, f"the batch has no file: send form fields named {uploads.FIELD!r}")
    if webhook is not None and not settings.allow_url:
        raise Refusal(422, "this service calls no webhooks: leave it out, and ask for the status", "bad_parameter")
    batch = await asyncio.to_thread(runner.store.create, contents, _owner(request, runner), idempotency_key, webhook)
    runner.wake()
    return await asyncio.to_thread(_answer, runner, batch, request, with_secret=True)


async def _read(request: Request, settings: HttpSettings) -> tuple[list[bytes] | list[str], str | None]:
    """The files or URLs of a request, and the webhook."""
    if uploads.content_type(request) == "application/json":
        if not settings.allow_url:
            raise Refusal(415, "this service does not download images from URLs: send the images themselves")
        return _urls(await uploads.read_raw(request, settings.limits.max_bytes), settings.batch_files)
    form = await uploads.read_form(request, max_bytes=settings.limits.largest, max_files=settings.batch_files)
    return form.files, form.fields.get("webhook")


def _urls(body: bytes, max_files: int) -> tuple[list[str], str | None]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not valid JSON", "bad_request") from None
    urls = fields.get("urls") if isinstance(fields, dict) else None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise Refusal(422, 'the body must be {"urls": ["https://...", ...]}')
    if len(urls) > max_files:
        raise Refusal(413, f"at most {max_files} files are accepted per request")
    webhook = fields.get("webhook")
    if webhook is not None and not isinstance(webhook, str):
        raise Refusal(422, "webhook must be an https URL", "bad_parameter")
    return urls, webhook


def show_batch(request: Request, runner: Runner, id: str) -> BatchAnswer:
    """Says how far a batch is."""
    return _answer(runner, runner.store.get(id, _owner(request, runner)), request)


def cancel_batch(request: Request, runner: Runner, id: str) -> BatchAnswer:
    """Ends a batch; the results that it has stay."""
    batch = runner.store.get(id, _owner(request, runner))
    runner.store.cancel(batch)
    return _answer(runner, batch, request)


def show_results(
    request: Request,
    runner: Runner,
    id: str,
    start: Annotated[int, Query(ge=0, description="index of the first file")] = 0,
    count: Annotated[int, Query(ge=1, le=PAGE, description="how many files")] = PAGE,
) -> BatchResults:
    """Returns the results that a batch has so far."""
    batch = runner.store.get(id, _owner(request, runner))
    return BatchResults(
        id=batch.id,
        status=runner.store.progress(batch).status,
        results=[BatchResult(**result) for result in runner.store.results(batch, start, count)],
        request_id=request_id(request),
    )
