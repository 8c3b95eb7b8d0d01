"""The examples in the OpenAPI document: real answers of the starter model about the example on the page.

  python -m serve_app.openapi_examples      asks again and writes openapi_examples.json

What is different in each request (ids, times, timings) is as it was then.
"""

import asyncio
import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from PIL import Image

from detector_core.registry import starter, versions
from detector_core.registry.predictor import Predictor
from serve_app.local import LocalModel
from serve_app.openapi import EXAMPLES
from serve_app.routes import create_app
from serve_app.settings import HttpSettings

STATIC = Path(__file__).parent / "static"


def main() -> None:
    """Asks the starter model, and writes the answers."""
    EXAMPLES.write_text(json.dumps(asyncio.run(_ask()), indent=1) + "\n")


async def _ask() -> dict[str, Any]:
    predictor = Predictor(versions.fetch(versions.live_location(starter.private_models(print))))
    picture = (STATIC / "example.jpg").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        settings = HttpSettings(batches_folder=folder)
        app = create_app(LocalModel(predictor), lambda: predictor.info, settings)
        transport = httpx.ASGITransport(app=app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
            app.router.lifespan_context(app),
        ):
            return await _answers(client, picture)


async def _answers(client: httpx.AsyncClient, picture: bytes) -> dict[str, Any]:
    await client.post("/v1/detect?explain=true", files={"file": picture})  # loads what the first request needs
    detect = (await client.post("/v1/detect?explain=true", files={"file": picture})).raise_for_status().json()
    if heatmap := detect["results"][0]["heatmap"]:
        heatmap["png_base64"] = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()  # its beginning, to keep this short
    clip = (await client.post("/v1/detect/video?frames=2", files={"file": _clip(picture)})).raise_for_status().json()
    batch = (await client.post("/v1/batches", files=[("file", picture)])).raise_for_status().json()
    where = f"/v1/batches/{batch['id']}"
    while (ended := (await client.get(where)).json())["deleted_after"] is None:
        await asyncio.sleep(0.1)
    return {
        "/v1/detect": detect,
        "/v1/detect/video": clip,
        "/v1/batches": batch,
        "/v1/batches/{id}": ended,
        "/v1/batches/{id}/results": (await client.get(f"{where}/results")).json(),
        "/v1/model": (await client.get("/v1/model")).raise_for_status().json(),
    }


def _clip(picture: bytes) -> bytes:
    """A second of a picture."""
    buffer, image = io.BytesIO(), Image.open(io.BytesIO(picture)).convert("RGB")
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream("libx264", rate=10)
        stream.width, stream.height = (side - side % 2 for side in image.size)
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            shown = np.asarray(image.crop((0, 0, stream.width, stream.height)))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


if __name__ == "__main__":
    main()
