"""One image: bytes -> faces -> squares of the model's size -> verdict.

Decoding and the search for faces run in a small pool of threads, each holding a whole image, so that the event loop
goes on; only the squares travel further. A budget keeps the images that are open at once within the memory.
"""

import asyncio
import base64
import io
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from detector_core.errors import BadConfig
from detector_core.images import faces, quality
from detector_core.images.decode import Heat, Pixels, decode, size_of
from detector_core.images.faces import Box, Face
from detector_core.images.preprocess import square
from detector_core.labels import FAKE, REAL
from detector_core.registry.predictor import ModelInfo, Prediction
from serve_app.schemas import FaceAnswer, Heatmap, Quality, Verdict, Warning
from serve_app.settings import Limits

OPEN_BYTES = 2**30
"""Memory that images may take together while they are decoded, in one process."""
BYTES_A_PIXEL = 12
"""At the worst moment: RGBA, what it is laid on, and RGB."""
NO_FACE = "no_face"

T = TypeVar("T")


class Judge(Protocol):
    """Asks the model; all raise Unavailable."""

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """One image of the model's size."""
        ...

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """heat_HW from 0 to 1: what speaks for a label."""
        ...

    async def model_info(self) -> ModelInfo:
        """The model that answers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Square:
    """What the model is asked about: image_SSC, where it lies, and the face in it, if one was looked for."""

    image_SSC: Pixels
    box: Box
    face: Face | None = None
    quality: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An image after its pixels are forgotten: ``width`` and ``height`` upright, and the squares to judge."""

    width: int
    height: int
    squares: tuple[Square, ...]
    warnings: tuple[Warning, ...]
    decode_s: float
    faces_s: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict about an image; the values of the square that decided, none where there is no face."""

    verdict: Verdict
    p_fake: float | None
    confidence: float | None
    decided: Square | None
    faces: list[FaceAnswer]
    heatmap: Heatmap | None
    model: ModelInfo
    detect_s: float
    explain_s: float


class Workers:
    """Threads that decode, and the memory they share. Work that nobody waits for any more still keeps its thread."""

    def __init__(self, count: int | None = None, open_bytes: int = OPEN_BYTES) -> None:
        self._pool = ThreadPoolExecutor(count or os.cpu_count() or 1, thread_name_prefix="images")
        self._open_bytes, self._taken = open_bytes, 0
        self._changed = threading.Condition()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs in a thread of the pool. Cancelled while it waits for one, it lets go of the bytes at once."""
        held = [partial(work, *arguments)]
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: held[0]())
        finally:
            held.clear()

    @contextmanager
    def memory(self, count: int) -> Iterator[None]:
        """Waits, in a thread, until so many bytes are free; one that needs more than there is goes alone."""
        count = min(count, self._open_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + count <= self._open_bytes)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


async def together(works: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """What each gives, in their order; the first error cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def look(data: bytes, model: ModelInfo, limits: Limits, search: bool, workers: Workers) -> Seen:
    """Decodes an image and finds what is to be judged. Raises BadImage."""
    width, height = size_of(data, max_pixels=limits.max_pixels)
    with workers.memory(width * height * BYTES_A_PIXEL):
        before = time.perf_counter()
        image_HWC = decode(data, max_pixels=limits.max_pixels)
        warnings: tuple[Warning, ...] = ("recompressed",) if quality.recompressed(data) else ()
        return look_at(image_HWC, model, limits, search, warnings, time.perf_counter() - before)


def look_at(
    image_HWC: Pixels,
    model: ModelInfo,
    limits: Limits,
    search: bool,
    warnings: tuple[Warning, ...] = (),
    decode_s: float = 0.0,
) -> Seen:
    """Finds what is to be judged in a decoded image."""
    before = time.perf_counter()
    height, width = image_HWC.shape[:2]
    found = faces.detect(image_HWC) if search else []
    squares = _squares(image_HWC, model, found[: limits.max_faces], search)
    said = list(warnings)
    if any(box[2] - box[0] < model.preprocess.image_size for box in (one.box for one in squares)):
        said.append("upscaled")
    if len(found) > 1:
        said.append("several_faces")
    if width != height and squares and squares[0].box == _centre(width, height):
        said.append("cropped")
    return Seen(
        width=width,
        height=height,
        squares=squares,
        warnings=tuple(said),
        decode_s=decode_s,
        faces_s=time.perf_counter() - before,
    )


def _squares(image_HWC: Pixels, model: ModelInfo, found: list[Face], search: bool) -> tuple[Square, ...]:
    height, width = image_HWC.shape[:2]
    if not search:
        return (Square(image_SSC=square(image_HWC, model.preprocess), box=_centre(width, height)),)
    if found and faces.fills(image_HWC, found[0]):  # an aligned portrait, judged as jobs.evaluate judges it
        whole, box = square(image_HWC, model.preprocess), _centre(width, height)
        return (Square(image_SSC=whole, box=box, face=found[0], quality=quality.of_face(image_HWC, found[0])),)
    return tuple(
        Square(
            image_SSC=square(faces.crop(image_HWC, face), model.preprocess),
            box=faces.crop_box(image_HWC, face),
            face=face,
            quality=quality.of_face(image_HWC, face),
        )
        for face in found
    )


def _centre(width: int, height: int) -> Box:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


async def ask(judge: Judge, squares: tuple[Square, ...], model: ModelInfo, explain: bool) -> Judged:
    """Asks the model about the squares of an image; the likeliest fake decides, for a fake passed is the graver error.

    Raises:
        Unavailable: the model cannot answer now.
    """
    before = time.perf_counter()
    predictions = await together(judge.predict(one.image_SSC) for one in squares)
    detect_s, before = time.perf_counter() - before, time.perf_counter()
    pairs = list(zip(squares, predictions, strict=True))
    decided, worst = max(pairs, key=lambda pair: pair[1].p_fake, default=(None, None))
    heatmap = await _heatmap(judge, decided, worst.verdict) if explain and decided and worst else None
    return Judged(
        verdict=_verdict(worst.verdict) if worst else NO_FACE,
        p_fake=worst.p_fake if worst else None,
        confidence=worst.confidence if worst else None,
        decided=decided,
        faces=[_face_answer(one, one.face, prediction) for one, prediction in pairs if one.face],
        heatmap=heatmap,
        model=worst.model if worst else model,
        detect_s=detect_s,
        explain_s=time.perf_counter() - before if explain else 0.0,
    )


def _face_answer(one: Square, face: Face, prediction: Prediction) -> FaceAnswer:
    left, top, right, bottom = (round(value) for value in face.box)
    flags: list[Quality] = [flag for flag in ("small", "blurred", "dark") if flag in one.quality]
    return FaceAnswer(
        box=(left, top, right, bottom),
        judged=one.box,
        score=min(1.0, face.score),
        p_fake=prediction.p_fake,
        verdict=_verdict(prediction.verdict),
        quality=flags,
    )


async def _heatmap(judge: Judge, decided: Square, verdict: str) -> Heatmap | None:
    toward = REAL if verdict == REAL else FAKE
    try:
        heat_HW = await judge.explain(decided.image_SSC, toward)
    except BadConfig:  # a network without feature maps
        return None
    buffer = io.BytesIO()
    grey_HW = np.rint(255 * np.clip(np.nan_to_num(heat_HW), 0, 1)).astype(np.uint8)
    Image.fromarray(grey_HW).save(buffer, "PNG")
    return Heatmap(toward=toward, box=decided.box, png_base64=base64.b64encode(buffer.getvalue()).decode())


def _verdict(said: str) -> Verdict:
    for known in ("real", "uncertain", "fake"):
        if said == known:
            return known
    raise ValueError(f"a verdict that is not known: {said}")
