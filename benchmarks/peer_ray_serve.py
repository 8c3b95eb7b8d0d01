"""Ray Serve as it comes, for ``benchmarks.serve`` to compare with: the network of ``benchmarks.peers`` in batches.

One deployment as in Ray's documentation: FastAPI, ``@serve.batch``, the default proxy and the default settings, except
that a replica accepts as many requests as two batches hold.

python -m benchmarks.peer_ray_serve MODEL PORT BATCH
"""

import sys
import threading
from pathlib import Path
from typing import Any

import ray
import torch
from fastapi import FastAPI, UploadFile
from ray import serve

from benchmarks.peers import TorchModel

app = FastAPI()


@serve.deployment(max_ongoing_requests=2 * int(sys.argv[3]) if len(sys.argv) > 3 else 32)
@serve.ingress(app)
class Detector:
    """Reads an image, and predicts it with those of other requests."""

    def __init__(self, model: str, batch: int) -> None:
        self.model = TorchModel(Path(model))
        batching: Any = self.predict
        batching.set_max_batch_size(batch)
        batching.set_batch_wait_timeout_s(0.003)

    @serve.batch
    async def predict(self, pixels: list[torch.Tensor]) -> list[float]:
        """p_fake of each image."""
        return self.model.predict(torch.stack(pixels))

    @app.post("/v1/detect")
    async def detect(self, file: UploadFile) -> dict[str, float]:
        """p_fake of an image."""
        return {"p_fake": await self.predict(self.model.read(await file.read()))}

    @app.get("/healthz")
    async def alive(self) -> str:
        """Answers when the model is loaded."""
        return "ok"


if __name__ == "__main__":
    folder, port, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray.init(address="local", include_dashboard=False, object_store_memory=200 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Detector.bind(folder, batch_size))  # type: ignore[attr-defined]  # the decorators hide it
    threading.Event().wait()
