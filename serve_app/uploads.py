"""The body of a request -> the bytes of its images, in memory: nothing goes to disk, no file name is looked at."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from serve_app.access import stated_bytes, take_room
from serve_app.errors import Refusal, Unavailable

FIELD = "file"
RAW = ("application/octet-stream",)
_FORM, _JSON = "multipart/form-data", "application/json"
_JSON_BYTES = 16 * 2**10
_FIELD_BYTES = 16 * 2**10

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form: the files named FIELD in their order, and its text fields."""

    files: list[bytes]
    fields: dict[str, str]


class _Parser(MultiPartParser):
    """Knows whether the closing boundary came: without it starlette leaves the last part out and says nothing."""

    whole = False

    def on_end(self) -> None:
        self.whole = True


def content_type(request: Request) -> str:
    """Without parameters, in lower case; empty where none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_images(
    request: Request,
    *,
    max_bytes: int,
    max_files: int,
    fetch: Callable[[str, Callable[[int], None]], Awaitable[bytes]] | None,
) -> list[bytes]:
    """One image as the body, many in a form, or one behind ``{"url"}``. Raises Refusal."""
    kind = content_type(request)
    if kind.startswith("image/") or kind in RAW:
        return [await read_raw(request, max_bytes)]
    if kind == _FORM:
        form = await read_form(request, max_bytes=max_bytes, max_files=max_files)
        if not form.files:
            raise Refusal(422, f"the form has no image in a field named {FIELD!r}")
        return form.files
    if kind == _JSON and fetch is not None:
        url = _url_in(await read_raw(request, _JSON_BYTES))
        return [await fetch(url, partial(take_room, request))]
    if kind == _JSON:
        raise Refusal(415, "this service fetches no addresses: send the image itself")
    raise Refusal(
        415, f"send a multipart form with a field {FIELD!r}, or one image as the body with its type: image/jpeg"
    )


async def read_clip(request: Request, *, max_bytes: int) -> bytes:
    """A clip as the body, or one in a form. Raises Refusal."""
    kind = content_type(request)
    if kind.startswith("video/") or kind in RAW:
        return await read_raw(request, max_bytes)
    if kind != _FORM:
        raise Refusal(
            415, f"send a multipart form with a field {FIELD!r}, or the clip as the body with its type: video/mp4"
        )
    form = await read_form(request, max_bytes=max_bytes, max_files=1)
    if not form.files:
        raise Refusal(422, f"the form has no clip in a field named {FIELD!r}", "no_video")
    return form.files[0]


async def read_raw(request: Request, max_bytes: int) -> bytes:
    """The body itself."""
    return b"".join([part async for part in _bounded(request, max_bytes)])


async def read_form(request: Request, *, max_bytes: int, max_files: int) -> Form:
    """A multipart form. Raises Refusal."""
    if content_type(request) != _FORM:
        raise Refusal(415, f"send a multipart form with a field {FIELD!r}")
    parser = _Parser(
        request.headers,
        _bounded(request, max_bytes),
        max_files=max_files,
        max_fields=max(max_files, 10),
        max_part_size=_FIELD_BYTES,
    )
    parser.spool_max_size = max_bytes + 1  # larger ones would go to a temporary file on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refusal(413, f"at most {max_files} files a request") from None
        raise Refusal(400, f"the form cannot be read: {error.message}", "bad_request") from None
    try:
        if not parser.whole:
            raise Refusal(400, "the form is torn: its closing boundary is missing", "bad_request")
        files = [await item.read() for item in form.getlist(FIELD) if isinstance(item, UploadFile)]
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()
    return Form(files=files, fields=fields)


def _url_in(body: bytes) -> str:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON", "bad_request") from None
    url = found.get("url") if isinstance(found, dict) else None
    if not isinstance(url, str):
        raise Refusal(422, 'the body must be {"url": "https://..."}')
    return url


async def _bounded(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it arrives; stops reading at the limit."""
    too_large = Refusal(413, f"the request is larger than {max_bytes / 2**20:g} MiB")
    if stated_bytes(request) > max_bytes:
        raise too_large
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > max_bytes:
            raise too_large
        take_room(request, len(part))
        yield part


async def within(deadline: float, reading: Awaitable[T]) -> T:
    """Waits for a body until a moment of the event loop's clock. Raises Refusal (408)."""
    try:
        async with asyncio.timeout_at(deadline):
            return await reading
    except TimeoutError:
        raise Refusal(408, "the request came too slowly", headers={"Connection": "close"}) from None


async def unless_gone(request: Request, deadline: float, work: Coroutine[None, None, T]) -> T:
    """Waits for work on a request that was read whole, and drops it when nobody waits for the answer any more.

    Raises:
        Unavailable: the deadline has passed.
        ClientDisconnect: the client is gone.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait((doing, watching), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    except TimeoutError:
        if doing.done() and not doing.cancelled() and doing.exception() is not None:
            raise
        raise Unavailable("the answer took too long: try again in a moment", retry_after_s=2) from None
    finally:
        doing.cancel()
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
