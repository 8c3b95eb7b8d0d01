"""A LitServe server for ``benchmarks.serve`` to compare with: the network of ``benchmarks.peers``, in batches.

python -m benchmarks.peer_litserve MODEL PORT BATCH
"""

import sys
from pathlib import Path

import litserve as ls
import numpy as np
import torch

from benchmarks.peers import TorchModel


class DetectorApi(ls.LitAPI):  # type: ignore[misc]  # litserve is an extra and may be missing
    """The methods that LitServe calls; one worker."""

    def setup(self, device: str) -> None:  # noqa: ARG002 -- the CPU
        self.predictor = TorchModel(Path(sys.argv[1]))

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would change what LitServe passes
        return self.predictor.read(request["file"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, pixels_BSSC: torch.Tensor) -> np.ndarray:
        return np.asarray(self.predictor.predict(pixels_BSSC))

    def unbatch(self, output: np.ndarray) -> list[float]:
        p_fake: list[float] = output.tolist()
        return p_fake

    def encode_response(self, output: float) -> dict[str, float]:
        return {"p_fake": output}


if __name__ == "__main__":
    api = DetectorApi(max_batch_size=int(sys.argv[3]), batch_timeout=0.003, api_path="/v1/detect")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/healthz", timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
