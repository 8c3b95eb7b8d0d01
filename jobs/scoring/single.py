"""Scoring of single files in this process, without Ray: each gets the answer of the service."""

import asyncio
import base64
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from detector_core import storage
from detector_core.errors import BadData, BadImage, DetectorError
from detector_core.images.decode import decode
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from detector_core.storage import os_errors
from jobs.common import cli
from serve_app.local import LocalService
from serve_app.settings import Faces, Limits

STDIN = "-"
HEATMAP_SUFFIX = ".heatmap.png"
TINT, STRENGTH = (255, 90, 0), 0.6
"""Color of the strongest evidence, and how much of it covers the image."""
MAX_STREAM_BYTES: Final = Limits().largest
"""How much is read of what may have no end: stdin, a pipe or a device."""


def predict_each(
    sources: list[str], location: str, device: str, *, faces: Faces, explain: bool, signers_file: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the answer about each file: ``path``, then what the service says, or ``error`` instead.

    Args:
        sources: files or URIs, or ``-`` for stdin.
        location: folder or URI of the model.
        device: ``cpu`` or ``cuda``.
        signers_file: certificates of trusted signers (PEM).
        explain: also write the heat map of every image beside it, as ``FILE.heatmap.png``. Its ``heatmap`` has an
            ``error`` if that fails.

    Raises:
        BadData: at the end, if files could not be scored, or heat maps could not be written.
    """
    service = LocalService(Predictor(versions.fetch(location), device=device), faces, signers_file)
    not_scored, not_written = [], []
    with asyncio.Runner() as runner:
        for source in sources:
            try:
                data = _read(source)
                answer = runner.run(service.answer(data, explain=explain))
            except (DetectorError, OSError, UnicodeError) as error:
                not_scored.append(source)
                yield {"path": source, "error": _explain(error)}
                continue
            if explain and "heatmap" not in answer:
                cli.say(f"{_printable(source)} is a clip: --explain writes heat maps of images only")
            elif explain and source != STDIN and answer["heatmap"]:
                try:
                    answer["heatmap"] = _save_heatmap(source, data, answer["heatmap"])
                except (DetectorError, OSError, UnicodeError) as error:
                    not_written.append(source)
                    answer["heatmap"] = {"error": _explain(error)}
            yield {"path": source, **answer}
    problems = ((not_scored, "files could not be scored"), (not_written, "heat maps could not be written"))
    if failed := [
        f"{len(files)} of {len(sources)} {problem}: {', '.join(map(_printable, files[:5]))}"
        for files, problem in problems
        if files
    ]:
        raise BadData("; ".join(failed))


def _read(source: str) -> bytes:
    """Reads a file, a URI or stdin. Raises BadImage if stdin, a pipe or a device has more than MAX_STREAM_BYTES."""
    if source != STDIN and storage.is_uri(source):
        return storage.read_bytes(source)
    opened = nullcontext(sys.stdin.buffer) if source == STDIN else Path(source).expanduser().open("rb")
    with opened as stream:
        if source != STDIN and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream.read()
        data = stream.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        limit = f"{MAX_STREAM_BYTES / 2**20:g} MiB"
        raise BadImage(
            f"more than the {limit} that are read of stdin, a pipe or a device: save it as a file, and name that"
        )
    return data


def _explain(error: DetectorError | OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "its name is not valid UTF-8: rename it"
    return os_errors.explain(error) if isinstance(error, OSError) else str(error)


def _printable(name: str) -> str:
    """A file's name on one line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def _save_heatmap(source: str, data: bytes, heatmap: dict[str, Any]) -> dict[str, Any]:
    """Writes the image with the evidence in color, and returns the heat map with the file's name for its pixels."""
    file = source + HEATMAP_SUFFIX
    image_HWC = decode(data).astype(np.float32)
    left, top, right, bottom = heatmap["box"]
    evidence = Image.open(io.BytesIO(base64.b64decode(heatmap["png_base64"]))).resize((right - left, bottom - top))
    height, width = image_HWC.shape[:2]
    alpha_HW = np.zeros((height, width), np.float32)
    alpha_HW[max(top, 0) : bottom, max(left, 0) : right] = np.asarray(evidence)[
        max(-top, 0) : height - top, max(-left, 0) : width - left
    ]
    alpha_HW1 = STRENGTH / 255 * alpha_HW[:, :, None]
    shown_HWC = image_HWC * (1 - alpha_HW1) + np.array(TINT, np.float32) * alpha_HW1
    buffer = io.BytesIO()
    Image.fromarray(shown_HWC.round().astype(np.uint8)).save(buffer, "PNG")
    storage.write_bytes(file, buffer.getvalue())
    return {"toward": heatmap["toward"], "box": heatmap["box"], "file": file}
