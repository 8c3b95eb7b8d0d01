"""Scoring of single files in this process, without Ray: each gets the answer of the service."""

import asyncio
import base64
import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from detector_core import storage
from detector_core.errors import BadData, BadImage
from detector_core.images.decode import decode
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from detector_core.storage import os_errors
from serve_app.local import LocalService
from serve_app.settings import Faces

STDIN = "-"
HEATMAP_SUFFIX = ".heatmap.png"
TINT, STRENGTH = (255, 90, 0), 0.6
"""Color of the strongest evidence, and how much of it covers the image."""


def predict_each(
    sources: list[str], location: str, device: str, *, faces: Faces, explain: bool, signers_file: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the answer about each file: ``path``, then what the service says, or ``error`` instead.

    Args:
        sources: files or URIs, or ``-`` for stdin.
        location: folder or URI of the model.
        device: ``cpu`` or ``cuda``.
        signers_file: certificates of trusted signers (PEM).
        explain: also write the heat map of every image beside it, as ``FILE.heatmap.png``.

    Raises:
        BadData: at the end, if files could not be scored.
    """
    service = LocalService(Predictor(versions.fetch(location), device=device), faces, signers_file)
    failed = []
    with asyncio.Runner() as runner:
        for source in sources:
            try:
                data = sys.stdin.buffer.read() if source == STDIN else storage.read_bytes(source)
                answer = runner.run(service.answer(data, explain=explain))
            except (BadImage, OSError) as error:
                failed.append(source)
                yield {"path": source, "error": os_errors.explain(error) if isinstance(error, OSError) else str(error)}
                continue
            if explain and source != STDIN and answer.get("heatmap"):
                answer["heatmap"] = _save_heatmap(source, data, answer["heatmap"])
            yield {"path": source, **answer}
    if failed:
        raise BadData(f"{len(failed)} of {len(sources)} files could not be scored: {', '.join(failed[:5])}")


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
