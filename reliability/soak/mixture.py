"""What a service is asked in a soak: a table of requests, good and bad, and what each must be answered."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from detector_core.data.demo import real_image
from tests.core.images.test_decode import bombs
from tests.support.asking import image_bytes
from tests.support.clips import clip

LEFT = 0
"""In place of a status: the client leaves, and wants no answer."""
JPEG = "image/jpeg"


@dataclass(frozen=True)
class Kind:
    """One row of the mixture.

    Attributes:
        share: how often, in parts of all shares.
        path: what is asked.
        body: makes the body from a number; bytes go as ``kind``, a form as a form, None as a GET.
        status, code: what must be answered; the code is empty for an answer that is no error.
    """

    name: str
    share: int
    path: str
    body: Callable[[int], bytes | dict[str, Any] | None]
    status: int
    code: str = ""
    kind: str = JPEG


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
    return clip()


def _rubbish(seed: int) -> bytes:
    """Random bytes, the start of an image, or nothing."""
    return [random.Random(seed).randbytes(5000), _photograph(seed)[: 300 + seed % 500], b""][seed % 3]


def _gift(seed: int, consent: str) -> dict[str, Any]:
    """Each is another image, so that each is kept."""
    return {"file": [image_bytes((64, 64), 10**6 + seed)], "label": ("real", "fake")[seed % 2], "consent": consent}


def _formats(number: int) -> dict[str, Any]:
    return {"file": [_photograph(number), image_bytes(format_="PNG"), image_bytes(format_="WEBP")]}


_DETECT, _VIDEO, _GIVE = "/v1/detect", "/v1/detect/video", "/v1/feedback"
MIXTURE = (
    Kind("image", 45, _DETECT, _photograph, 200),
    Kind("faces looked for", 4, f"{_DETECT}?faces=on", lambda number: _portrait(number % 4), 200),
    Kind("heat map", 4, f"{_DETECT}?explain=true", _photograph, 200),
    Kind("three in a form", 4, _DETECT, _formats, 200),
    Kind("clip", 2, f"{_VIDEO}?frames=4", lambda _: _clip(), 200, kind="video/mp4"),
    Kind("feedback", 8, _GIVE, lambda number: _gift(number, "true"), 201),
    Kind("the model", 5, "/v1/model", lambda _: None, 200),
    Kind("the page", 3, "/", lambda _: None, 200),
    Kind("bomb", 6, _DETECT, lambda number: _bombs()[number % len(_bombs())], 413, "too_large"),
    Kind("rubbish", 7, _DETECT, _rubbish, 400, "not_an_image"),
    Kind("rubbish for a clip", 2, _VIDEO, _rubbish, 400, "not_a_video", "video/mp4"),
    Kind("torn form", 3, _DETECT, lambda _: b"--x\r\nConten", 400, "bad_request", "multipart/form-data; boundary=x"),
    Kind("no consent", 2, _GIVE, lambda number: _gift(number, "no"), 422, "no_consent"),
    Kind("another type", 2, _DETECT, lambda _: b"text", 415, "unsupported_media_type", "text/plain"),
    Kind("client that leaves", 3, _DETECT, _photograph, LEFT),
)
"""About two thirds are judged; the rest is what a service on the open internet gets."""
