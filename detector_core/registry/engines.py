"""Engines, which compute the logits of a served model: OpenVINO on a CPU, torch on a GPU or without an export.

An engine takes pixels_BSSC, uint8 RGB squares of the model's size, and returns logit_B float32. It normalizes the
pixels itself (OpenVINO does so in its graph). Not in this module: exporting a network to OpenVINO
(:mod:`detector_core.registry.openvino_export`), and which precision may be served
(:mod:`detector_core.registry.parity_gate`).
"""

import queue
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
from detector_core.networks.openvino_graphs import FLOAT32, cpu_has_bf16, cpu_settings, import_openvino

if TYPE_CHECKING:
    import torch

Engine = Callable[[Pixels], NDArray[np.float32]]

PRECISIONS = ("int8", "bf16", "fp32")
"""From the fastest to the slowest."""
FILE_NAMES = {"int8": "int8.xml", "bf16": "fp32.xml", "fp32": "fp32.xml"}
"""The OpenVINO file of each precision; bf16 is the fp32 file computed in bf16."""
COMPUTE_DTYPES = {"int8": "bf16", "bf16": "bf16", "fp32": "f32"}
"""The compute dtype of layers that are not int8, by precision, if the CPU supports it."""


def compute_dtype_of(precision: str) -> str:
    """The compute dtype that this CPU uses for a precision: bf16 or f32."""
    return COMPUTE_DTYPES[precision] if cpu_has_bf16() else FLOAT32


class OpenVinoEngine:
    """An exported network on the CPU. Several threads may call it; ``passes`` of them compute at a time.

    With more than one pass, each computes in a stream of its own with its part of the threads: that is the fastest for
    a crowd, because the threads of one pass would wait for each other. A single image that finds the engine idle is
    computed with all threads at once. For that, the file is compiled twice, which takes its weights twice
    (docs/measured.md has the memory).

    Args:
        file: the .xml file, next to its .bin file.
        precision: one of :data:`PRECISIONS`.
        threads: number of compute threads; 0 is OpenVINO's default, one per physical core.
        compute_dtype: bf16 or f32, as the parity gate compared it; None uses :func:`compute_dtype_of`. f32 is used if
            this CPU does not support it.
        passes: how many batches are computed at a time; at most ``threads``.

    Raises:
        BrokenArtifact: OpenVINO cannot load the file.
    """

    batch_sizes = (1,)

    def __init__(
        self, file: Path, precision: str, threads: int = 0, compute_dtype: str | None = None, passes: int = 1
    ) -> None:
        supported = compute_dtype_of(precision)
        self._settings = cpu_settings(supported if compute_dtype in (None, supported) else FLOAT32, threads)
        self.passes = max(1, min(passes, threads))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._alone = self._compile(file).create_infer_request()
        self._alone_lock = threading.Lock()
        if self.passes == 1:
            self._idle.put(self._alone)
            return
        streams = self._compile(file, PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=self.passes)
        black_1SSC = np.zeros(
            (1, *(length.get_length() for length in list(streams.input().partial_shape)[1:])), np.uint8
        )
        for _ in range(self.passes):
            request = streams.create_infer_request()
            _infer(request, black_1SSC)  # so that no request waits for a slow first pass
            self._idle.put(request)

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        if len(pixels_BSSC) == 1 < self.passes == self._idle.qsize() and self._alone_lock.acquire(blocking=False):
            try:
                return _infer(self._alone, pixels_BSSC)
            finally:
                self._alone_lock.release()
        request = self._idle.get()
        try:
            return _infer(request, pixels_BSSC)
        finally:
            self._idle.put(request)

    def _compile(self, file: Path, **settings: Any) -> Any:
        try:
            return import_openvino().Core().compile_model(str(file), "CPU", self._settings | settings)
        except RuntimeError as error:
            raise BrokenArtifact(
                f"{file} cannot be loaded ({str(error).splitlines()[-1]}): promote the model again"
            ) from None


def _infer(request: Any, pixels_BSSC: Pixels) -> NDArray[np.float32]:
    request.infer([np.ascontiguousarray(pixels_BSSC)], share_inputs=True)
    return np.array(request.get_output_tensor().data, dtype=np.float32).reshape(-1)


class TorchEngine:
    """A torch network in float32, or on a GPU with autocast to bf16 and CUDA graphs; one pass at a time.

    A compiled network has one graph per batch size of :func:`compiled_batch_sizes`, pads smaller batches, and computes
    in a single dedicated thread, because CUDA graphs belong to the thread that recorded them. Warm it up with each of
    :attr:`batch_sizes`. Compiling was tested on a CPU only.

    Args:
        backend: the backend of ``torch.compile``; None uses CUDA graphs on a GPU and does not compile elsewhere.
    """

    passes = 1

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
        if self.device.type == "cuda":  # pragma: no cover - needs a CUDA GPU
            from detector_core import gpu  # imports torch

            gpu.check()
        network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._autocast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=precision == "bf16")
        self._network: Any = network
        self.batch_sizes: tuple[int, ...] = (1,)
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        if backend or self.device.type == "cuda":
            options: dict[str, Any] = {"backend": backend} if backend else {"mode": "reduce-overhead"}
            self._network = torch.compile(network, dynamic=False, **options)
            self.batch_sizes = compiled_batch_sizes(batch_size)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    def __call__(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        if self._thread is None:
            with self._lock:
                return self._compute(pixels_BSSC)
        logit_B = self._thread.submit(self._compute, pad_batch(pixels_BSSC, self.batch_sizes)).result()
        return logit_B[: len(pixels_BSSC)]

    def _compute(self, pixels_BSSC: Pixels) -> NDArray[np.float32]:
        import torch

        from detector_core.images.preprocess import normalize

        with torch.inference_mode(), self._autocast():
            x_BCHW = normalize(torch.from_numpy(pixels_BSSC).to(self.device), self.preprocess)
            logit_B = self._network(x_BCHW.contiguous(memory_format=torch.channels_last)).flatten()
            logits: NDArray[np.float32] = logit_B.float().cpu().numpy()
        return logits


def compiled_batch_sizes(batch_size: int) -> tuple[int, ...]:
    """1, 4, 16, ... up to and including ``batch_size``: the batch sizes to compile a network for."""
    sizes: list[int] = []
    size = 1
    while size < batch_size:
        sizes.append(size)
        size *= 4
    return (*sizes, batch_size)


def pad_batch(pixels_BSSC: Pixels, sizes: tuple[int, ...]) -> Pixels:
    """Pads the batch with black images to the next of the ``sizes``; a larger batch stays as it is."""
    size = next((size for size in sizes if size >= len(pixels_BSSC)), len(pixels_BSSC))
    if size == len(pixels_BSSC):
        return pixels_BSSC
    padded = np.zeros((size, *pixels_BSSC.shape[1:]), dtype=np.uint8)
    padded[: len(pixels_BSSC)] = pixels_BSSC
    return padded
