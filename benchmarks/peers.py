"""The servers that ``benchmarks.serve`` sets beside ours: the same network in torch, eager, float32.

python -m benchmarks.peers LitServe|FastAPI MODEL PORT BATCH
"""

import os
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from detector_core.images.preprocess import decode, normalize, square
from detector_core.networks import artifacts


class Torch:
    """Bytes -> p_fake, with all cores."""

    def __init__(self, model: Path) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self.network, artifact = artifacts.load(model)
        self.preprocess = artifact.spec.preprocess

    def read(self, data: bytes) -> torch.Tensor:
        """An image as pixels_SSC."""
        return torch.from_numpy(square(decode(data), self.preprocess).copy())

    def judge(self, pixels_BSSC: torch.Tensor) -> list[float]:
        """The probabilities."""
        with torch.inference_mode():
            found: list[float] = self.network(normalize(pixels_BSSC, self.preprocess)).flatten().sigmoid().tolist()
        return found


def fastapi(model: Path, port: int) -> None:
    """One process; each request runs in the thread pool of FastAPI, one image a pass."""
    judge, app = Torch(model), FastAPI()

    @app.get("/healthz")
    def alive() -> str:
        return "ok"

    @app.post("/v1/detect")
    def detect(file: UploadFile) -> dict[str, float]:
        return {"p_fake": judge.judge(judge.read(file.file.read())[None])[0]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    folder, number = sys.argv[1:3]
    fastapi(Path(folder), int(number))
