"""What computes the logits of a served model: OpenVINO on a CPU, torch on a GPU and where nothing was exported.

An engine takes pixels_BSSC, uint8 RGB squares of the model's size, and gives logit_B float32. Preprocessing is the
engine's own (OpenVINO has it in the graph), from the same record. Left out: how a network becomes an OpenVINO file
(:mod:`detector_core.registry.openvino_export`) and which precision may be served
(:mod:`detector_core.registry.parity_gate`).
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector_core.config import PreprocessSpec
from detector_core.errors import BrokenArtifact
from detector_core.images.decode import Pixels

if TYPE_CHECKING:
    import torch

Engine = Callable[[Pixels], NDArray[np.float32]]

PRECISIONS = ("int8", "bf16", "fp32")
"""The fastest first."""
FILE_NAMES = {"int8": "int8.xml", "bf16": "fp32.xml", "fp32": "fp32.xml"}
"""bf16 is the fp32 file, multiplied in bf16."""
ARITHMETIC = {"int8": "bf16", "bf16": "bf16", "fp32": "f32"}
"""What OpenVINO does with what is not int8, where the CPU can. Said always: left to itself it takes bf16."""
EXACT = "f32"


_ONE_CORE = threading.Lock()


def import_openvino() -> Any:
    """The module, without its telemetry and with one ``Core`` for the whole process.

    None in ``sys.modules`` makes the import of the telemetry, which would write to the home directory and ask the
    network, fail as if it were not installed; OpenVINO and NNCF then use stubs of their own.

    Each Core brings a signal stack to the thread that made it and unmaps it when it is dropped. Dropped from another
    thread, or before a younger one, it leaves that thread a stack that is gone, and the next signal that Python handles
    there (the end of a data loader's worker, say) kills the process. So ``Core()`` gives the same one always, to NNCF
    as well. Everything here that needs either of them comes through this function first.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as module

    with _ONE_CORE:
        if isinstance(module.Core, type):
            core = module.Core()
            module.Core = lambda: core
    return module


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def arithmetic_of(precision: str) -> str:
    """What this CPU multiplies in for a precision: bf16 or f32."""
    return ARITHMETIC[precision] if cpu_has_bf16() else EXACT


class OpenVinoEngine:
    """An exported file on the CPU; safe to call from several threads, one at a time computes.

    Args:
        file: the .xml; the .bin lies beside it.
        precision: one of :data:`PRECISIONS`.
        threads: of the computation; 0 leaves it to OpenVINO: the physical cores.
        arithmetic: bf16 or f32, what it was gated with; None: what ``arithmetic`` says. A CPU without bf16 takes f32.

    Raises:
        BrokenArtifact: OpenVINO cannot read the file.
    """

    sizes = (1,)

    def __init__(self, file: Path, precision: str, threads: int = 0, arithmetic: str | None = None) -> None:
        here = arithmetic_of(precision)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": here if arithmetic in (None, here) else EXACT,
            # Pinned threads of two replicas on one machine would share cores while others idle.
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = import_openvino().Core().compile_model(str(file), "CPU", settings)
        except RuntimeError as error:
            raise BrokenArtifact(f"{file} cannot be loaded ({str(error).splitlines()[-1]}): promote again") from None
        self._request = self._model.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        with self._lock:
            self._request.infer([np.ascontiguousarray(pixels_BSSC)], share_inputs=True)
            return np.array(self._request.get_output_tensor().data, dtype=np.float32).reshape(-1)


class TorchEngine:
    """A network of torch, in float32, or on a GPU with autocast to bf16 and CUDA graphs.

    Compiled, it has one graph for each batch size of :func:`sizes`, fills smaller batches up, and computes in a thread
    of its own, for CUDA graphs belong to the thread that recorded them. :attr:`sizes` are what to warm it up with. The
    compiled part has run on a CPU only: the machine it was written on has no GPU.

    Args:
        backend: of ``torch.compile``; None: CUDA graphs on a GPU, and not compiled elsewhere.
    """

    def __init__(
        self,
        network: "torch.nn.Module",
        preprocess: PreprocessSpec,
        precision: str = "fp32",
        *,
        device: str = "cpu",
        batch_size: int = 32,
        backend: Any = None,
    ) -> None:
        import torch

        self.preprocess, self.device = preprocess, torch.device(device)
        network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._autocast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=precision == "bf16")
        self._network: Any = network
        self.sizes: tuple[int, ...] = (1,)
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        if backend or self.device.type == "cuda":
            how: dict[str, Any] = {"backend": backend} if backend else {"mode": "reduce-overhead"}
            self._network = torch.compile(network, dynamic=False, **how)
            self.sizes = sizes(batch_size)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        if self._thread is None:
            with self._lock:
                return self._compute(pixels_BSSC)
        found = self._thread.submit(self._compute, pad_batch(pixels_BSSC, self.sizes)).result()
        return found[: len(pixels_BSSC)]

    def _compute(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        import torch

        from detector_core.images.preprocess import normalize

        with torch.inference_mode(), self._autocast():
            x_BCHW = normalize(torch.from_numpy(pixels_BSSC).to(self.device), self.preprocess)
            logit_B = self._network(x_BCHW.contiguous(memory_format=torch.channels_last)).flatten()
            found: NDArray[np.float32] = logit_B.float().cpu().numpy()
        return found


def sizes(batch_size: int) -> tuple[int, ...]:
    """1, 4, 16, ... and ``batch_size``: the batches that are compiled."""
    steps: list[int] = []
    size = 1
    while size < batch_size:
        steps.append(size)
        size *= 4
    return (*steps, batch_size)


def pad_batch(pixels_BSSC: Pixels, allowed: tuple[int, ...]) -> Pixels:
    """The batch with zero images behind it, up to the next of the ``allowed`` sizes; as it is beyond the last."""
    size = next((size for size in allowed if size >= len(pixels_BSSC)), len(pixels_BSSC))
    if size == len(pixels_BSSC):
        return pixels_BSSC
    full = np.zeros((size, *pixels_BSSC.shape[1:]), dtype=np.uint8)
    full[: len(pixels_BSSC)] = pixels_BSSC
    return full
