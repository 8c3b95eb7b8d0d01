"""detector_core.gpu: what a machine lacks whose GPU cannot be used, with an nvidia-smi that this test writes."""

import os
import stat
from pathlib import Path

import pytest
import torch

from detector_core import gpu
from detector_core.errors import InsufficientResources


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The nvidia-smi of a machine with a torch for CUDA 13 that finds no GPU."""
    script = tmp_path / "nvidia-smi"
    script.touch()
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo '470.57.02, Tesla T4'", "needs the NVIDIA driver 580.65.06 or newer, and this machine has 470.57.02"),
        ("echo '580.65, Tesla T4'", "needs the NVIDIA driver 580.65.06 or newer, and this machine has 580.65"),
        ("echo '580.105.08, NVIDIA A10G'", "lists NVIDIA A10G, but torch"),
        ("echo 'Failed to initialize NVML'; exit 18", "nvidia-smi says 'Failed to initialize NVML'"),
        ("exit 9", "nvidia-smi says 'exit code 9'"),
        ("sleep 5", "nvidia-smi did not answer within 0.2 s"),
    ],
)
def test_the_machine_and_what_it_lacks_are_named(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    nvidia_smi.write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr(gpu, "SMI_S", 0.2 if "sleep" in script else 20)
    with pytest.raises(InsufficientResources, match="no GPU can be used on ") as raised:
        gpu.check()
    assert message in str(raised.value)


def test_a_missing_driver_and_a_torch_without_cuda(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi.unlink()
    monkeypatch.setenv("PATH", str(nvidia_smi.parent))
    with pytest.raises(InsufficientResources, match="nvidia-smi was not found"):
        gpu.check()
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InsufficientResources, match="was built without CUDA"):
        gpu.check()


def test_a_gpu_that_can_be_used_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu.check()
