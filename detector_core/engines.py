"""What computes the logits of a served model: OpenVINO on a CPU, torch on a GPU and where nothing was exported.

An engine takes pixels_BSSC, uint8 RGB squares of the model's size, and gives logit_B float32. Preprocessing is the
engine's own (OpenVINO has it in the graph), from the same record. Left out: how a network becomes an OpenVINO file
(:mod:`detector_core.export`) and which precision may be served (:mod:`detector_core.gate`).
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector_core.config import PreprocessSpec
from detector_core.errors import BrokenArtifact
from detector_core.pictures import Pixels

if TYPE_CHECKING:
    import torch

Engine = Callable[[Pixels], NDArray[np.float32]]

PRECISIONS = ("int8", "bf16", "fp32")
"""The fastest first."""
FILE_OF = {"int8": "int8.xml", "bf16": "fp32.xml", "fp32": "fp32.xml"}
"""bf16 is the fp32 file, multiplied in bf16."""
MULTIPLY_IN = {"int8": "f32", "bf16": "bf16", "fp32": "f32"}
"""What OpenVINO does with what is not int8. Said always: left to itself it takes bf16 wherever the CPU has it."""


def openvino() -> Any:
    """The module, imported without its telemetry, which would write to the home directory and ask the network.

    None in ``sys.modules`` makes the import of that package fail, as if it were not installed; OpenVINO and NNCF then
    use stubs of their own. Everything here that needs either of them comes through this function first.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as module

    return module


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVino:
    """An exported file on the CPU; safe to call from several threads, one at a time computes.

    Args:
        file: the .xml; the .bin lies beside it.
        precision: one of :data:`PRECISIONS`; bf16 on a CPU without it is fp32.
        threads: of the computation; 0 leaves it to OpenVINO: the physical cores.

    Raises:
        BrokenArtifact: OpenVINO cannot read the file.
    """

    def __init__(self, file: Path, precision: str, threads: int = 0) -> None:
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "bf16" and not cpu_has_bf16() else MULTIPLY_IN[precision],
            # Pinned threads of two replicas on one machine would share cores while others idle.
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = openvino().Core().compile_model(str(file), "CPU", settings)
        except RuntimeError as error:
            raise BrokenArtifact(f"{file} cannot be loaded ({str(error).splitlines()[-1]}): promote again") from None
        self._request = self._model.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        with self._lock:
            self._request.infer([np.ascontiguousarray(pixels_BSSC)], share_inputs=True)
            return np.array(self._request.get_output_tensor().data, dtype=np.float32).reshape(-1)


class Torch:
    """A network of torch, in float32, or on a GPU with autocast to bf16 and CUDA graphs.

    The GPU part compiles one graph for each batch size of :func:`sizes`, and fills smaller batches up. It has not run
    on a GPU yet: the machine it was written on has none.
    """

    def __init__(
        self,
        network: "torch.nn.Module",
        preprocess: PreprocessSpec,
        precision: str = "fp32",
        *,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        import torch

        self.preprocess, self.device = preprocess, torch.device(device)
        network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")
        self._network: Any = network
        self._sizes: tuple[int, ...] = ()
        if self.device.type == "cuda":
            self._network = torch.compile(network, mode="reduce-overhead", dynamic=False)
            self._sizes = sizes(batch_size)
        self._lock = threading.Lock()

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        import torch

        from detector_core.preprocess import normalize

        count = len(pixels_BSSC)
        pixels = torch.from_numpy(filled_up(pixels_BSSC, self._sizes))
        with self._lock, torch.inference_mode(), self._autocast:
            x_BCHW = normalize(pixels.to(self.device), self.preprocess)
            logit_B = self._network(x_BCHW.contiguous(memory_format=torch.channels_last)).flatten()
            found: NDArray[np.float32] = logit_B.float().cpu().numpy()
        return found[:count]


def sizes(batch_size: int) -> tuple[int, ...]:
    """1, 4, 16, ... and ``batch_size``: the batches that are compiled."""
    steps: list[int] = []
    size = 1
    while size < batch_size:
        steps.append(size)
        size *= 4
    return (*steps, batch_size)


def filled_up(pixels_BSSC: Pixels, allowed: tuple[int, ...]) -> Pixels:
    """The batch with zero pictures behind it, up to the next of the ``allowed`` sizes; as it is beyond the last."""
    size = next((size for size in allowed if size >= len(pixels_BSSC)), len(pixels_BSSC))
    if size == len(pixels_BSSC):
        return pixels_BSSC
    full = np.zeros((size, *pixels_BSSC.shape[1:]), dtype=np.uint8)
    full[: len(pixels_BSSC)] = pixels_BSSC
    return full
