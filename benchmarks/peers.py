"""A plain FastAPI server for ``benchmarks.serve`` to compare with: the same network in torch, eager mode, float32.

python -m benchmarks.peers MODEL PORT [BATCH, which is not used]
"""

import os
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from detector_core.images.preprocess import decode, normalize, square
from detector_core.networks import artifacts


class TorchModel:
    """Predicts p_fake from the bytes of an image, on all cores."""

    def __init__(self, model: Path) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self.network, artifact = artifacts.load(model)
        self.preprocess = artifact.spec.preprocess

    def read(self, data: bytes) -> torch.Tensor:
        """Decodes an image: pixels_SSC."""
        return torch.from_numpy(square(decode(data), self.preprocess).copy())

    def predict(self, pixels_BSSC: torch.Tensor) -> list[float]:
        """Predicts p_fake for each image."""
        with torch.inference_mode():
            p_fake: list[float] = self.network(normalize(pixels_BSSC, self.preprocess)).flatten().sigmoid().tolist()
        return p_fake


def fastapi(model: Path, port: int) -> None:
    """Serves in one process; each request runs in FastAPI's thread pool, one image per pass."""
    predictor, app = TorchModel(model), FastAPI()

    @app.get("/healthz")
    def alive() -> str:
        return "ok"

    @app.post("/v1/detect")
    def detect(file: UploadFile) -> dict[str, float]:
        return {"p_fake": predictor.predict(predictor.read(file.file.read())[None])[0]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    folder, number = sys.argv[1:3]
    fastapi(Path(folder), int(number))
