"""What promotion records about the machine that the gate was measured on."""

from pathlib import Path

import pytest

from detector_core.registry import promotion


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel name\t: Fast 3000\nmodel name\t: Fast 3000\n", "Fast 3000"),
        ("processor\t: 0\nCPU part\t: 0xd40\n", "aarch64"),
        (None, "aarch64"),
    ],
    ids=["named", "ARM", "no such file"],
)
def test_machine_names_the_processor_and_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str | None, model: str
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(promotion, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert promotion.machine() == f"{model}, 8 cores"
