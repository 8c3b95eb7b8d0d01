"""detector_core.training.optimizer: the compute dtype of a device and the schedules of the learning rate."""

import pytest
import torch
from torch import nn

from detector_core.config import RunSpec
from detector_core.training.optimizer import learning_rate, resolve_compute_dtype


@pytest.mark.parametrize(
    ("device", "native", "compute_dtype", "expected"),
    [
        ("cuda", {"cuda"}, "auto", "bf16"),
        ("cuda", {"avx512", "amx"}, "auto", "fp32"),
        ("cpu", {"avx512"}, "auto", "bf16"),
        ("cpu", {"amx"}, "auto", "bf16"),
        ("cpu", {"cuda"}, "auto", "fp32"),
        ("cpu", set(), "bf16", "bf16"),
        ("cuda", {"cuda"}, "fp32", "fp32"),
    ],
)
def test_auto_is_bf16_only_on_devices_that_multiply_it_natively(
    monkeypatch: pytest.MonkeyPatch,
    tiny_spec: RunSpec,
    device: str,
    native: set[str],
    compute_dtype: str,
    expected: str,
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or "cuda" in native
    )
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512" in native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in native)
    optim = tiny_spec.replace({"optim.compute_dtype": compute_dtype}).optim
    assert resolve_compute_dtype(optim, nn.Conv2d(4, 4, 3), torch.device(device)) == expected


@pytest.mark.parametrize(
    ("device", "groups", "trained", "expected"),
    [
        ("cpu", 4, True, "fp32"),
        ("cpu", 4, False, "bf16"),
        ("cpu", 2, True, "bf16"),
        ("cuda", 4, True, "bf16"),
    ],
)
def test_auto_is_fp32_where_a_cpu_trains_depthwise_convolutions(
    monkeypatch: pytest.MonkeyPatch, tiny_spec: RunSpec, device: str, groups: int, trained: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups), nn.Linear(4, 1))
    network[0].requires_grad_(trained)
    optim = tiny_spec.replace({"optim.compute_dtype": "auto"}).optim
    assert resolve_compute_dtype(optim, network, torch.device(device)) == expected


def test_learning_rate_schedules(tiny_spec: RunSpec) -> None:
    constant = tiny_spec.optim
    cosine = tiny_spec.replace({"optim.schedule": "cosine"}).optim
    assert [learning_rate(constant, step, 4) for step in (0, 6, 11)] == [0.003] * 3
    assert [learning_rate(cosine, step, 4) for step in (0, 6, 12)] == pytest.approx([0.003, 0.0015, 0])
