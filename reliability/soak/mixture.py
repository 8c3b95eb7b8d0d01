"""The requests of a soak: a table of valid and invalid requests, and how each must be answered."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from detector_core.data.demo import real_image
from tests.core.images.test_decode import bombs
from tests.support.clips import make_clip
from tests.support.http_service import image_bytes

DISCONNECTS = 0
"""In place of a status: the client disconnects and waits for no response."""
JPEG = "image/jpeg"


@dataclass(frozen=True)
class RequestKind:
    """One row of the mixture.

    Attributes:
        weight: how often it is sent, relative to the sum of all weights.
        path: path and query.
        body: makes the body of the n-th request: bytes are sent as ``content_type``, a dict as a form, None as a GET.
        status: the expected status, or DISCONNECTS.
        code: the expected code of an error; empty for a response that is no error.
    """

    name: str
    weight: int
    path: str
    body: Callable[[int], bytes | dict[str, Any] | None]
    status: int
    code: str = ""
    content_type: str = JPEG


def _photograph(number: int) -> bytes:
    return _noise(number % 16)


@cache
def _noise(seed: int) -> bytes:
    return image_bytes((256, 256), seed)


@cache
def _portrait(seed: int) -> bytes:
    """A painted face of 256 px."""
    return real_image(np.random.default_rng(seed), 256)


@cache
def _bombs() -> list[bytes]:
    return list(bombs().values())


@cache
def _clip() -> bytes:
    return make_clip()


def _garbage(seed: int) -> bytes:
    """Random bytes, the start of an image, or nothing."""
    return [random.Random(seed).randbytes(5000), _photograph(seed)[: 300 + seed % 500], b""][seed % 3]


_GIFTS = itertools.count(10**6)


def _feedback(seed: int, consent: str) -> dict[str, Any]:
    """An image that this process has not sent before, so that each is stored: equal ones count once."""
    return {"file": [image_bytes((64, 64), next(_GIFTS))], "label": ("real", "fake")[seed % 2], "consent": consent}


def _three_formats(number: int) -> dict[str, Any]:
    return {"file": [_photograph(number), image_bytes(format_="PNG"), image_bytes(format_="WEBP")]}


_DETECT, _VIDEO, _FEEDBACK = "/v1/detect", "/v1/detect/video", "/v1/feedback"
_MULTIPART = "multipart/form-data; boundary=x"
MIXTURE = (
    RequestKind("image", 45, _DETECT, _photograph, 200),
    RequestKind("faces on", 4, f"{_DETECT}?faces=on", lambda number: _portrait(number % 4), 200),
    RequestKind("heat map", 4, f"{_DETECT}?explain=true", _photograph, 200),
    RequestKind("three in a form", 4, _DETECT, _three_formats, 200),
    RequestKind("clip", 2, f"{_VIDEO}?frames=4", lambda _: _clip(), 200, content_type="video/mp4"),
    RequestKind("feedback", 8, _FEEDBACK, lambda number: _feedback(number, "true"), 201),
    RequestKind("model", 5, "/v1/model", lambda _: None, 200),
    RequestKind("page", 3, "/", lambda _: None, 200),
    RequestKind("bomb", 6, _DETECT, lambda number: _bombs()[number % len(_bombs())], 413, "too_large"),
    RequestKind("garbage", 7, _DETECT, _garbage, 400, "not_an_image"),
    RequestKind("garbage as a clip", 2, _VIDEO, _garbage, 400, "not_a_video", "video/mp4"),
    RequestKind("torn form", 3, _DETECT, lambda _: b"--x\r\nConten", 400, "bad_request", _MULTIPART),
    RequestKind("no consent", 2, _FEEDBACK, lambda number: _feedback(number, "no"), 422, "no_consent"),
    RequestKind("wrong type", 2, _DETECT, lambda _: b"text", 415, "unsupported_media_type", "text/plain"),
    RequestKind("client disconnects", 3, _DETECT, _photograph, DISCONNECTS),
)
"""About two thirds reach the model; the rest is what any service on the open internet receives."""
