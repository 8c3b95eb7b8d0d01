"""OpenVINO on a CPU: its import without telemetry, torch networks as its graphs, and networks compiled in this process.

Here a graph takes normalized images and stays in memory. Not in this module: the files that are served
(:mod:`detector_core.registry.openvino_export`) and the engines that serve them (:mod:`detector_core.registry.engines`).
"""

import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FLOAT32 = "f32"
"""What OpenVINO calls float32."""

_CORE_LOCK = threading.Lock()


def import_openvino() -> Any:
    """Imports OpenVINO without its telemetry and with a single ``Core`` for the whole process.

    None in ``sys.modules`` makes the import of the telemetry fail as if it were not installed; OpenVINO and NNCF then
    use stubs. The telemetry would write to the home directory and access the network.

    Each Core installs a signal stack in the thread that creates it, and unmaps it when it is deleted. If it is deleted
    in another thread, or before a newer Core, the first thread keeps a stack that is unmapped, and the next signal
    that Python handles there (e.g. the exit of a data loader worker) kills the process. So ``Core()`` always returns
    the same object, also to NNCF. All code that needs either package must call this function first.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as module

    with _CORE_LOCK:
        if isinstance(module.Core, type):
            core = module.Core()
            module.Core = lambda: core
    return module


def cpu_has_bf16() -> bool:
    """Whether this CPU has bf16 instructions."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_settings(compute_dtype: str, threads: int = 0) -> dict[str, Any]:
    """The settings of ``compile_model`` for a CPU.

    Args:
        compute_dtype: bf16 or f32. It is always set, because OpenVINO would choose bf16 even for an fp32 file.
        threads: number of compute threads; 0 is OpenVINO's default, one per physical core.
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": compute_dtype,
        # If threads were pinned, two processes on one machine would share some cores and leave others idle.
        "ENABLE_CPU_PINNING": False,
    }
    return settings | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def trace(network: "torch.nn.Module", image_size: int) -> Any:
    """An ``openvino.Model`` of a network that takes x_BCHW float32, for any batch size.

    Args:
        network: in evaluation mode, on the CPU.
        image_size: pixels of an image's side.
    """
    import torch

    ov = import_openvino()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # OpenVINO traces with torch.jit, which torch calls deprecated
        example = torch.zeros(1, 3, image_size, image_size)
        return ov.convert_model(network, example_input=example, input=[-1, 3, image_size, image_size])


def compile_network(
    network: "torch.nn.Module", image_size: int, threads: int
) -> "Callable[[torch.Tensor], torch.Tensor]":
    """A function that computes what the network computes, in fp32 and up to three times as fast as torch.

    Args:
        network: in evaluation mode, on the CPU; returns one tensor.
        image_size: pixels of an image's side.
        threads: number of compute threads.

    Returns:
        x_BCHW float32 -> the output of the network, float32.
    """
    import torch

    graph = trace(network, image_size)
    compiled = import_openvino().Core().compile_model(graph, "CPU", cpu_settings(FLOAT32, threads))
    request = compiled.create_infer_request()

    def compute(x_BCHW: torch.Tensor) -> torch.Tensor:
        request.infer([x_BCHW.contiguous().numpy()], share_inputs=True)
        return torch.tensor(request.get_output_tensor().data)  # a copy: the next call reuses the memory

    return compute
