"""Reads the body of a request into memory. Nothing is written to disk, and file names are ignored."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve_app.capacity import content_length, hold_bytes
from serve_app.errors import Refusal
from serve_app.middleware import timings_of

FIELD = "file"
OCTETS = "application/octet-stream"
_FORM, _JSON = "multipart/form-data", "application/json"
_JSON_BYTES = 16 * 2**10
_FIELD_BYTES = 16 * 2**10

Fetch = Callable[[str, Callable[[int], None]], Awaitable[bytes]]
"""Downloads a URL; the second argument is called with the number of bytes as they arrive."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A multipart form: the files in its fields named FIELD, in order, and its text fields."""

    files: list[bytes]
    fields: dict[str, str]


class _Parser(MultiPartParser):
    """Records whether the closing boundary arrived: without it Starlette silently drops the last part."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


def content_type(request: Request) -> str:
    """The media type in lower case, without parameters; empty if the request has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_images(
    request: Request,
    *,
    max_bytes: int,
    max_files: int,
    fetch: Fetch | None,
) -> list[bytes]:
    """Reads the images of a request: one as the body, several in a form, or one from ``{"url": ...}``. Raises Refusal.

    Args:
        fetch: downloads the image behind a URL; None if the service does not do that.
    """
    kind = content_type(request)
    if kind.startswith("image/") or kind == OCTETS:
        return [await read_raw(request, max_bytes)]
    if kind == _FORM:
        form = await read_form(request, max_bytes=max_bytes, max_files=max_files)
        if not form.files:
            raise Refusal(422, f"the form has no image in a field named {FIELD!r}")
        return form.files
    if kind == _JSON and fetch is not None:
        url = _url_in(await read_raw(request, _JSON_BYTES))
        return [await fetch(url, partial(hold_bytes, request))]
    if kind == _JSON:
        raise Refusal(415, "this service does not download images from URLs: send the image itself")
    raise Refusal(
        415, f"send a multipart form with a field {FIELD!r}, or one image as the body with its type, such as image/jpeg"
    )


async def read_clip(request: Request, *, max_bytes: int) -> bytes:
    """Reads the clip of a request, sent as the body or in a form. Raises Refusal."""
    kind = content_type(request)
    if kind.startswith("video/") or kind == OCTETS:
        return await read_raw(request, max_bytes)
    if kind != _FORM:
        raise Refusal(
            415,
            f"send a multipart form with a field {FIELD!r}, or the clip as the body with its type, such as video/mp4",
        )
    form = await read_form(request, max_bytes=max_bytes, max_files=1)
    if not form.files:
        raise Refusal(422, f"the form has no clip in a field named {FIELD!r}", "no_video")
    return form.files[0]


async def read_raw(request: Request, max_bytes: int) -> bytes:
    """Reads the body as it is. Raises Refusal."""
    return b"".join([part async for part in _stream(request, max_bytes)])


async def read_form(request: Request, *, max_bytes: int, max_files: int) -> Form:
    """Reads a multipart form. Raises Refusal."""
    if content_type(request) != _FORM:
        raise Refusal(415, f"send a multipart form with a field {FIELD!r}")
    parser = _Parser(
        request.headers,
        _stream(request, max_bytes),
        max_files=max_files,
        max_fields=max(max_files, 10),
        max_part_size=_FIELD_BYTES,
    )
    parser.spool_max_size = max_bytes + 1  # a larger part would be written to a temporary file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refusal(413, f"at most {max_files} files are accepted per request") from None
        raise Refusal(400, f"the form is malformed: {error.message}", "bad_request") from None
    try:
        if not parser.complete:
            raise Refusal(400, "the form is incomplete: its closing boundary is missing", "bad_request")
        files = [await item.read() for item in form.getlist(FIELD) if isinstance(item, UploadFile)]
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()
    return Form(files=files, fields=fields)


def too_many_frames(limit: int) -> Refusal:
    """The answer to a request for more frames than the limit."""
    return Refusal(422, f"parameter frames: at most {limit} frames can be scored", "bad_parameter")


def _url_in(body: bytes) -> str:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not valid JSON", "bad_request") from None
    url = parsed.get("url") if isinstance(parsed, dict) else None
    if not isinstance(url, str):
        raise Refusal(422, 'the body must be {"url": "https://..."}')
    return url


async def _stream(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, up to the limit. Raises Refusal, Busy."""
    limit = f"{max_bytes / 2**20:g} MiB" if max_bytes >= 2**20 else f"{max_bytes / 2**10:g} KiB"
    too_large = Refusal(413, f"the request is larger than {limit}", budget="bytes")
    timings = timings_of(request)
    if content_length(request) > max_bytes:
        raise too_large
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > max_bytes:
            raise too_large
        hold_bytes(request, len(part))
        timings.bytes = total
        yield part
