"""Whether PyTorch can use the GPU of this machine, and what is missing if it cannot.

Sources: NVIDIA's release notes of the CUDA toolkit, minimum Linux drivers of each major version of CUDA.
"""

import re
import shutil
import socket
import subprocess

import torch

from detector_core.errors import InsufficientResources

MINIMUM_DRIVERS = {"12": "525.60.13", "13": "580.65.06"}
"""Major version of CUDA -> the oldest NVIDIA driver for Linux that runs it."""
SMI = ("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
SMI_S = 20


def check() -> None:
    """Returns if PyTorch can use a GPU.

    Raises:
        InsufficientResources: it cannot; names the machine and what it lacks. Without this, PyTorch would compute on
            the cores of a machine that is paid for its GPU.
    """
    if not torch.cuda.is_available():
        raise InsufficientResources(f"no GPU can be used on {socket.gethostname()}: {_missing()}")


def _missing() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install the locked environment (uv sync --locked)"
    if shutil.which(SMI[0]) is None:
        return "nvidia-smi was not found; install an NVIDIA driver, or use a machine image that has one"
    try:
        listed = subprocess.run(SMI, capture_output=True, text=True, check=False, timeout=SMI_S)
    except subprocess.TimeoutExpired:
        return f"nvidia-smi did not answer within {SMI_S} s; the driver hangs, restart the machine"
    driver, _, name = listed.stdout.partition("\n")[0].partition(", ")
    if listed.returncode or not driver:
        output = (listed.stdout + listed.stderr).strip() or f"exit code {listed.returncode}"
        return f"nvidia-smi says {output.splitlines()[0]!r}"
    cuda = torch.version.cuda
    needed = MINIMUM_DRIVERS.get(cuda.partition(".")[0])
    if needed and _numbers(driver) < _numbers(needed):
        return (
            f"torch {torch.__version__} is built for CUDA {cuda}, which needs the NVIDIA driver {needed} or newer, and "
            f"this machine has {driver}; use a machine image with a newer driver, as cluster.yaml names one"
        )
    return (
        f"the driver {driver} lists {name}, but torch {torch.__version__} finds no GPU; is CUDA_VISIBLE_DEVICES empty?"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
