"""Decodes images of strangers in warm child processes with limited memory and CPU time.

Results and errors are those of :mod:`detector_core.images.decode`. A child decodes one image after another, as many
children as there are threads that call; one that crashes, exceeds its budget or is cancelled is replaced. What a child
may do is described in :mod:`detector_core.images.child`.
"""

import io
import json
import sys
import time
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import numpy as np
from PIL import AvifImagePlugin, Image

from detector_core.errors import BadImage, TooCostly
from detector_core.images import child as children
from detector_core.images import metadata
from detector_core.images.budget import CpuBudget, OverBudget
from detector_core.images.child import Cancellation, Child, Crashed, MemoryLimit, WarmChildren, message
from detector_core.images.decode import FORMATS, MAX_PIXELS, Decoded, decode_file, load_heic, opened
from detector_core.images.formats import BUILT_IN

BYTES_PER_PIXEL: Final = 15
"""Peak memory of an image while it is decoded: RGBA, the background it is composited onto and RGB in the child, and RGB
in its parent."""
FIXED_BYTES: Final = 2**26
CPU_S, CPU_S_PER_MEGAPIXEL = 1.0, 0.2
"""CPU time that decoding an image may take. Photos take up to 0.05 s a megapixel on one core of a server."""
STRIP_FACTOR: Final = 3
"""Stripping metadata decodes an image up to three times, or compresses it."""
CHILDREN: Final = WarmChildren(__name__, "decodes images")


class SandboxedImage:
    """An image that is open in a child; call one of its methods, once.

    Attributes:
        width, height: as in :class:`detector_core.images.decode.OpenedImage`.
    """

    def __init__(self, child: Child, budget: CpuBudget, max_pixels: int) -> None:
        self._child, self._budget, self._max_pixels = child, budget, max_pixels
        self.width = self.height = 0
        self.finished = False
        """Whether the child waits for the next image."""

    def decode(self) -> Decoded:
        """Decodes the image. Raises as :func:`opened_in_child`."""
        fields = self.ask({"do": "decode"}, self.cpu_limit)
        height, width = fields["height"], fields["width"]
        if height * width > self._max_pixels:
            raise Crashed("it returned too many pixels")
        image_HWC = np.empty((height, width, 3), np.uint8)
        self._child.read_into(image_HWC)
        self.finished = True
        quantization = tuple(fields["quantization"]) if fields["quantization"] else None
        return Decoded(
            image_HWC=image_HWC,
            metadata_intact=fields["metadata_intact"],
            animated=fields["animated"],
            quantization=quantization,
        )

    def strip(self) -> tuple[bytes, str]:
        """:func:`detector_core.images.metadata.strip`. Raises as :func:`opened_in_child`."""
        fields = self.ask({"do": "strip"}, STRIP_FACTOR * self.cpu_limit)
        stripped = bytearray(fields["bytes"])
        self._child.read_into(stripped)
        self.finished = True
        return bytes(stripped), fields["suffix"]

    @property
    def cpu_limit(self) -> float:
        """Seconds of CPU time that decoding the image may take."""
        return CPU_S + CPU_S_PER_MEGAPIXEL * self.width * self.height / 1e6

    def ask(self, task: dict[str, Any], cpu_s: float, data: bytes = b"") -> dict[str, Any]:
        """Gives the child a task, and returns its answer. Raises the error that it reports."""
        with self._budget.grant(cpu_s) as grant:
            self._child.write(message(**task, cpu_s=grant.seconds) + data)
            fields = self._child.read()
            grant.used = fields["cpu_s"]
        self.finished = "error" in fields
        children.raise_reported(fields)
        return fields


@contextmanager
def opened_in_child(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    accepted: Collection[str] = FORMATS,
    budget: CpuBudget | None = None,
    cancellation: Cancellation | None = None,
) -> Iterator[SandboxedImage]:
    """Opens an image in a child process.

    Args:
        data, max_pixels, accepted: see :func:`detector_core.images.decode.decode_file`.
        budget: CPU time that this and other images may take together.
        cancellation: ends the child.

    Raises:
        BadImage: as in :func:`detector_core.images.decode.decode`; also if the decoder crashes.
        TooCostly: decoding takes too much CPU time or memory, also within the ``with`` block.
        Cancelled: ``cancellation`` was cancelled.
    """
    cancellation, budget = cancellation or Cancellation(), budget or CpuBudget()
    borrowed = CHILDREN.borrow()
    image = SandboxedImage(borrowed, budget, max_pixels)
    try:
        with cancellation.on_cancel(borrowed.kill):
            task = {"bytes": len(data), "max_pixels": max_pixels, "accepted": list(accepted)}
            size = image.ask(task, CPU_S, data)
            image.width, image.height = size["width"], size["height"]
            yield image
    except OverBudget:
        raise TooCostly(f"decoding took too much CPU time: an image may take {image.cpu_limit:.1f} s") from None
    except Crashed as error:
        cancellation.check()
        raise BadImage(f"damaged image: decoding it failed ({error})") from None
    finally:
        CHILDREN.give_back(borrowed, reusable=image.finished)


def child() -> None:  # pragma: no cover - runs in a child process, which cannot write a coverage file
    """The child's main function: reads tasks from stdin, writes messages, pixels and files to stdout."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    _load_decoders()
    memory = MemoryLimit()
    stdout.write(message(ready=True))
    stdout.flush()
    while line := stdin.readline():
        task = json.loads(line)
        data = stdin.read(task["bytes"])
        memory.allow(BYTES_PER_PIXEL * task["max_pixels"] + 4 * len(data) + FIXED_BYTES)
        Image.MAX_IMAGE_PIXELS = task["max_pixels"]
        _work(data, task, stdin, stdout)


def _work(data: bytes, task: dict[str, Any], stdin: IO[bytes], stdout: IO[bytes]) -> None:  # pragma: no cover - child
    """Opens an image, and does with it what the next message says."""
    fields: dict[str, object] = {}
    content: Any = b""
    started = _start_clock(task)
    try:
        with opened(data, max_pixels=task["max_pixels"], accepted=task["accepted"]) as image:
            _answer(stdout, started, width=image.width, height=image.height)
            task = json.loads(stdin.readline())
            started = _start_clock(task)
            if task["do"] == "strip":
                content, suffix = metadata.strip(data)
                fields = {"bytes": len(content), "suffix": suffix}
            else:
                decoded = image.decode()
                content = decoded.image_HWC.data
                height, width = decoded.image_HWC.shape[:2]
                fields = {"height": height, "width": width, "quantization": decoded.quantization}
                fields |= {"metadata_intact": decoded.metadata_intact, "animated": decoded.animated}
    except BadImage as error:
        fields = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        fields = {"error": TooCostly.__name__, "message": "the image needs too much memory to decode"}
    except Exception:
        fields = {"bug": traceback.format_exc()}
    _answer(stdout, started, content, **fields)


def _start_clock(task: dict[str, Any]) -> float:  # pragma: no cover - as child
    children.limit_cpu(task["cpu_s"])
    return time.process_time()


def _answer(stdout: IO[bytes], started: float, content: Any = b"", **fields: object) -> None:  # pragma: no cover
    stdout.write(message(**fields, cpu_s=time.process_time() - started))
    stdout.write(content)
    stdout.flush()


def _load_decoders() -> None:  # pragma: no cover - as child
    """Decodes an image of every format, after which Python opens no further files."""
    if "HEIC" in FORMATS:
        load_heic()
    for format_ in BUILT_IN:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, format_)
        decode_file(buffer.getvalue())
        metadata.strip(buffer.getvalue())
