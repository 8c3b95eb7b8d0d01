"""The servers that ``benchmarks.serve`` sets beside ours: the same network in torch, eager, float32.

python -m benchmarks.peers LitServe|FastAPI MODEL PORT BATCH
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from detector_core import artifacts
from detector_core.preprocess import decode, normalize, square


class Torch:
    """Bytes -> p_fake, with all cores."""

    def __init__(self, model: Path) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self.network, artifact = artifacts.load(model)
        self.preprocess = artifact.spec.preprocess

    def read(self, data: bytes) -> torch.Tensor:
        """A picture as pixels_SSC."""
        return torch.from_numpy(square(decode(data), self.preprocess).copy())

    def judge(self, pixels_BSSC: torch.Tensor) -> list[float]:
        """The probabilities."""
        with torch.inference_mode():
            found: list[float] = self.network(normalize(pixels_BSSC, self.preprocess)).flatten().sigmoid().tolist()
        return found


def fastapi(model: Path, port: int) -> None:
    """One process; each request runs in the thread pool of FastAPI, one picture a pass."""
    judge, app = Torch(model), FastAPI()

    @app.get("/healthz")
    def alive() -> str:
        return "ok"

    @app.post("/v1/detect")
    def detect(file: UploadFile) -> dict[str, float]:
        return {"p_fake": judge.judge(judge.read(file.file.read())[None])[0]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def litserve(model: Path, port: int, batch: int) -> None:
    """One worker that batches; LitServe's own verbs."""
    import litserve as ls

    class Judge(ls.LitAPI):
        def setup(self, device: str) -> None:  # noqa: ARG002 -- the CPU
            self.judge = Torch(model)

        def decode_request(self, request: Any) -> torch.Tensor:
            return self.judge.read(request["file"].file.read())

        def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack(inputs)

        def predict(self, pixels_BSSC: torch.Tensor) -> np.ndarray:
            return np.asarray(self.judge.judge(pixels_BSSC))

        def unbatch(self, output: np.ndarray) -> list[float]:
            return output.tolist()

        def encode_response(self, output: float) -> dict[str, float]:
            return {"p_fake": output}

    api = Judge(max_batch_size=batch, batch_timeout=0.003, api_path="/v1/detect")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/healthz", timeout=120)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    name, folder, number, size = sys.argv[1:]
    litserve(Path(folder), int(number), int(size)) if name == "LitServe" else fastapi(Path(folder), int(number))
